"""How any model is scored on the test split: the same items, in the same order, for candidate and champion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import read_json
from visavis.steps import items
from visavis.steps.framework import StepJob
from visavis.steps.study_pictures import STUDY, write_study_pictures

if TYPE_CHECKING:
    from visavis.chat.model import ChatModel
    from visavis.data.published.tokens import TokenStore
    from visavis.evaluation.items import ReconstructionItem, RoundItem, SingleRoundItem
    from visavis.evaluation.scorecard import Scorecard
    from visavis.models.detokenizer import Detokenizer
    from visavis.registry.versions import Version

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
    detokenizers: Mapping[items.Judged, Detokenizer],
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
    from visavis.evaluation.evaluate import evaluate
    from visavis.packs.loaders import load_clip, load_faces

    config, steps = job.recipe.evaluate, job.recipe.detokenizer.sample_steps
    singles = items.chosen(store, "pair", config.max_single_round, config.seed)
    chats = items.chosen(store, "rounds", config.max_rounds // 2, config.seed)
    ablated = items.with_other_pictures(chats[: config.max_ablation // 2])
    job.progress(1, 6, "generating")
    closeups, firsts = items.round_items(store, chats, items.paint(model, model.mllm, store, chats))
    job.progress(2, 6, "generating")
    alone = items.single_round_items(store, singles, items.paint(model, model.mllm, store, singles))
    write_study_pictures(alone[: config.study_pictures], job.work / STUDY)
    replaced, _ = items.round_items(store, ablated, items.paint(model, model.mllm, store, ablated))
    job.progress(3, 6, "reconstructing")
    rebuilt = items.reconstruction_items(store, detokenizers, model.autoencoder, steps, config)
    job.progress(4, 6, "scoring")
    scorecard = evaluate(
        single_round=alone,
        rounds=closeups,
        ablation=replaced,
        reconstruction=rebuilt,
        first_rounds=firsts,
        faces=load_faces(job.pack),
        clip=load_clip(job.pack),
        config=config,
        about=about,
    )
    return Scored(scorecard, singles, chats, alone, closeups, rebuilt)


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
    painters: dict[items.Judged, Detokenizer] = {"after": model.detokenizer, "served": model.detokenizer}
    return score(job, model, TokenStore.open(job.folder("tokens")), painters, about)
