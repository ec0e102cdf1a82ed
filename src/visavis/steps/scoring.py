"""How any model is scored on the test split: the same items, in the same order, for candidate and champion."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import read_json, write_atomic
from visavis.steps.framework import LEDGER_NAME, StepJob, StepResult
from visavis.steps.run_files import REPORT, SCORECARD
from visavis.steps.study_pictures import STUDY, write_study_pictures

if TYPE_CHECKING:
    from PIL.Image import Image

    from visavis.chat.model import ChatModel
    from visavis.data.published.tokens import TokenStore
    from visavis.evaluation.items import (
        FirstRoundItem,
        PromptedItem,
        ReconstructionItem,
        RetentionItem,
        RoundItem,
        SingleRoundItem,
    )
    from visavis.evaluation.scorecard import Scorecard
    from visavis.evaluation.systems import System
    from visavis.models.detokenizer import Detokenizer
    from visavis.registry.versions import Version
    from visavis.steps.items import Judged, Painted

SECTION = (
    "pack",
    "evaluate",
    "detokenizer.sample_steps",
    "pack.faces",
    "pack.clip",
    "pack.vae",
    "pack.image_encoder",
)
"""What a scoring step reads of the recipe."""


@dataclass(frozen=True)
class Scored:
    """What came of scoring a model.

    Attributes:
        scorecard: Its figures.
        singles: Samples of the single rounds.
        chats: Samples of the chats.
        alone: Personalised pictures, one for each of `singles`.
        closeups: Close-ups of rounds 2 and 3 of the chats.
        rebuilt: Pictures through encoder and detokenizers.
    """

    scorecard: Scorecard
    singles: list[dict[str, Any]]
    chats: list[dict[str, Any]]
    alone: list[SingleRoundItem]
    closeups: list[RoundItem]
    rebuilt: list[ReconstructionItem]


def score(
    job: StepJob,
    model: ChatModel,
    store: TokenStore,
    detokenizers: Mapping[Judged, Detokenizer],
    about: Mapping[str, object],
) -> Scored:
    """Generates and scores what the recipe's section `evaluate` asks for.

    Args:
        job: The step, for its recipe, pack and progress.
        model: The model as it serves.
        store: Pictures and tokens of the test split.
        detokenizers: Those whose reconstructions are scored; see `ReconstructionItem`.
        about: Facts on the model for the scorecard.
    """
    from visavis.steps import items

    config, steps = job.recipe.evaluate, job.recipe.detokenizer.sample_steps
    made = _generated(job, store, lambda samples: items.paint(model, model.mllm, store, samples))
    write_study_pictures(made.alone[: config.study_pictures], job.work / STUDY)
    lasting = items.retention_items(model, store, made.chats[: config.max_retention], config)
    job.progress(3, 6, "reconstructing")
    rebuilt = items.reconstruction_items(store, detokenizers, model.autoencoder, steps, config)
    job.progress(4, 6, "scoring")
    return _scored(job, made, about, lasting, rebuilt)


def score_system(job: StepJob, system: System, store: TokenStore, about: Mapping[str, object]) -> Scored:
    """Scores another system on the same items; what it cannot do is left out of its scorecard.

    Args:
        job: The step, for its recipe, pack and progress.
        system: What paints.
        store: Pictures of the test split.
        about: Facts on the system for the scorecard.
    """
    from visavis.steps.items import painted_by

    made = _generated(job, store, lambda samples: painted_by(system, store, samples))
    job.progress(4, 6, "scoring")
    return _scored(job, made, about, [], [])


@dataclass(frozen=True)
class _Generated:
    """What every system generates, and from which samples."""

    singles: list[dict[str, Any]]
    chats: list[dict[str, Any]]
    alone: list[SingleRoundItem]
    closeups: list[RoundItem]
    firsts: list[FirstRoundItem]
    replaced: list[RoundItem]
    prompted: list[PromptedItem]


def _generated(
    job: StepJob, store: TokenStore, paint: Callable[[list[dict[str, Any]]], Painted]
) -> _Generated:
    from visavis.steps import items

    config = job.recipe.evaluate
    singles = items.chosen(store, "pair", config.max_single_round, config.seed)
    chats = items.chosen(store, "rounds", config.max_rounds // 2, config.seed)
    ablated = items.with_other_pictures(chats[: config.max_ablation // 2])
    job.progress(1, 6, "generating")
    closeups, firsts = items.round_items(store, chats, paint(chats))
    job.progress(2, 6, "generating")
    alone = items.single_round_items(store, singles, paint(singles))
    replaced, _ = items.round_items(store, ablated, paint(ablated))
    prompted = items.prompted_items(paint, store, singles[: config.max_prompted], config)
    return _Generated(singles, chats, alone, closeups, firsts, replaced, prompted)


def _scored(
    job: StepJob,
    made: _Generated,
    about: Mapping[str, object],
    lasting: list[RetentionItem],
    rebuilt: list[ReconstructionItem],
) -> Scored:
    from visavis.evaluation.evaluate import evaluate
    from visavis.packs.loaders import load_clip, load_faces

    scorecard = evaluate(
        single_round=made.alone,
        rounds=made.closeups,
        ablation=made.replaced,
        reconstruction=rebuilt,
        first_rounds=made.firsts,
        retention=lasting,
        prompted=made.prompted,
        faces=load_faces(job.pack),
        clip=load_clip(job.pack),
        config=job.recipe.evaluate,
        about=about,
    )
    return Scored(scorecard, made.singles, made.chats, made.alone, made.closeups, rebuilt)


def finished(job: StepJob, scored: Scored, title: str, pictures: Mapping[str, Image]) -> StepResult:
    """Writes scorecard, items, report and ledger of an evaluation.

    Args:
        job: The step.
        scored: What came of scoring.
        title: Heading of the report.
        pictures: Pictures of the report by their headings.
    """
    from visavis.evaluation.report import write_report

    scored.scorecard.write(job.work / SCORECARD)
    scored.scorecard.write_items(job.work / "items.jsonl")
    write_atomic(job.work / REPORT, write_report(title, scored.scorecard, pictures))
    for name in (SCORECARD, REPORT):
        job.tracker.log_artifact(job.work / name)
    return StepResult(scored_items(job, scored), scored.scorecard.metrics())


def scored_items(job: StepJob, scored: Scored) -> dict[str, Any]:
    """Writes the ledger of an evaluation, which keeps all that it scores; returns its counts."""
    from visavis.data.ledger import Ledger

    ledger = Ledger(job.name)
    for sample in (*scored.singles, *scored.chats):
        ledger.keep(sample["id"])
    return ledger.close(job.work / LEDGER_NAME, len(scored.singles) + len(scored.chats))


def champion_of(tracking_uri: str, recipe: str) -> Version | None:
    """Returns the champion of the model that a recipe registers; None if there is none.

    Args:
        tracking_uri: MLflow's address; empty: there is no registry to ask.
        recipe: Resolved recipe as JSON.
    """
    from visavis.registry.versions import CHAMPION, find_if_there

    if not tracking_uri:
        return None
    name = json.loads(recipe)["registration"]["name"]
    return find_if_there(f"models:/{name}@{CHAMPION}", tracking_uri=tracking_uri)


def score_version(job: StepJob, version: Version) -> Scored:
    """Scores a registered version on the test split of the input `tokens`.

    Raises:
        VisavisError: If it was made of another pack: it does not read the same image tokens.
    """
    from visavis.chat.model import MODEL_FILE, ChatModel
    from visavis.data.published.tokens import TokenStore
    from visavis.loading import resolve

    folder = resolve(version.uri, tracking_uri=job.context.tracking_uri)
    pack = read_json(folder / MODEL_FILE)["pack"]
    if pack != job.recipe.pack:
        raise VisavisError(
            f"{version.uri} was made of pack {pack!r}, and this run uses {job.recipe.pack!r}: "
            "they do not read the same image tokens",
            fix="register models of another pack under another name: registration.name=...",
        )
    model = ChatModel.from_pretrained(folder)
    assert model.detokenizer is not None
    about = {"version": version.uri, "pack": pack, "rounds": "history given"}
    painters: dict[Judged, Detokenizer] = {"after": model.detokenizer, "served": model.detokenizer}
    return score(job, model, TokenStore.open(job.folder("tokens")), painters, about)
