"""How any model is scored on the test split: the same items, in the same order, for candidate and champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visavis.steps import items
from visavis.steps.framework import StepJob

if TYPE_CHECKING:
    from visavis.chat.model import ChatModel
    from visavis.data.published.tokens import TokenStore
    from visavis.evaluation.items import ReconstructionItem
    from visavis.evaluation.scorecard import Scorecard
    from visavis.models.detokenizer import Detokenizer

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
        rebuilt: Pictures through encoder and detokenizers.
    """

    scorecard: Scorecard
    singles: list[dict[str, Any]]
    chats: list[dict[str, Any]]
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
    return Scored(scorecard, singles, chats, rebuilt)
