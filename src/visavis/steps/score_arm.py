"""Scores one arm of the paper's comparisons: its reconstructions and, if it has an MLLM, its single rounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, run_step

if TYPE_CHECKING:
    from visavis.data.published.tokens import TokenStore
    from visavis.evaluation.items import SingleRoundItem
    from visavis.models.detokenizer import Detokenizer

STEP = "score_arm"


def score_arm(recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    section = (
        "evaluate",
        "detokenizer.sample_steps",
        "mllm.pair.keep_identical_text",
        "pack.faces",
        "pack.clip",
        "pack.vae",
        "pack.image_encoder",
    )
    return run_step(STEP, _body, recipe, context, inputs, output, section)


def _body(job: StepJob) -> StepResult:
    from visavis.data.ledger import Ledger
    from visavis.data.published.tokens import TokenStore
    from visavis.evaluation.evaluate import evaluate
    from visavis.models.detokenizer import Detokenizer
    from visavis.packs.loaders import load_autoencoder, load_clip, load_faces
    from visavis.steps import items

    config, store = job.recipe.evaluate, TokenStore.open(job.folder("tokens"))
    tuned, autoencoder = job.folder("detokenizer"), load_autoencoder(job.pack)
    before, after = (Detokenizer.from_pretrained(tuned / name) for name in ("natural", "people"))
    steps = job.recipe.detokenizer.sample_steps
    rebuilt = items.reconstruction_items(
        store, {"before": before, "after": after}, autoencoder, steps, config
    )
    job.progress(1, 3, "generating")
    painter = Detokenizer.from_pretrained(job.folder("adapted")) if "adapted" in job.inputs else after
    alone = _single_rounds(job, store, painter, autoencoder) if "mllm" in job.inputs else []
    job.progress(2, 3, "scoring")
    scorecard = evaluate(
        single_round=alone,
        rounds=[],
        reconstruction=rebuilt,
        faces=load_faces(job.pack),
        clip=load_clip(job.pack),
        config=config,
        about={"recipe": job.recipe.name, "pack": job.recipe.pack},
    )
    scorecard.write(job.work / "scorecard.json")
    scorecard.write_items(job.work / "items.jsonl")
    ledger = Ledger(job.name)
    for name in [*(item.item_id for item in alone), *(item.item_id for item in rebuilt)]:
        ledger.keep(name)
    return StepResult(ledger.close(job.work / LEDGER_NAME, len(alone) + len(rebuilt)), scorecard.metrics())


def _single_rounds(
    job: StepJob, store: TokenStore, detokenizer: Detokenizer, autoencoder: Any
) -> list[SingleRoundItem]:
    """Paints the people of the test split, asked as the arm was trained to be asked."""
    from transformers import AutoTokenizer

    from visavis.chat.model import ChatModel
    from visavis.models.mllm import Mllm
    from visavis.packs.loaders import load_image_encoder
    from visavis.steps import items
    from visavis.training.mllm import with_keep_identical

    config, folder = job.recipe.evaluate, job.folder("mllm")
    samples = items.chosen(store, "pair", config.max_single_round, config.seed)
    if job.recipe.mllm.pair.keep_identical_text:
        samples = [{**sample, "turns": with_keep_identical(sample["turns"])} for sample in samples]
    model = ChatModel(
        Mllm.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        load_image_encoder(job.pack),
        detokenizer,
        autoencoder,
        job.recipe.detokenizer.sample_steps,
    )
    return items.single_round_items(store, samples, items.paint(model, model.mllm, store, samples))
