"""The arms of the paper's comparisons: each is the recipe of the run but for the one thing that is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from visavis.evaluation.claims import ClaimResult
from visavis.evaluation.comparisons import CLAIMS
from visavis.evaluation.scorecard import number_at
from visavis.recipes import Recipe, edit

ARMS_OF = {
    "dit_over_unet": ("dit_untrained", "unet"),
    "condition_image_helps_unet": ("unet_stage2", "unet"),
    "dit_over_unet_stage2": ("dit_untrained", "unet_stage2"),
    "pooling_costs_detail": ("unpooled", "staged"),
    "people_tuning_helps_faces": ("staged", "staged"),
    "stages_over_direct": ("staged", "direct"),
    "text_helps_direct": ("direct_text", "direct"),
    "mse_over_cosine": ("staged", "cosine"),
    "pooling_over_resampler": ("new_pool", "new_resampler"),
    "adaptation_helps": ("adapted", "unadapted"),
}
"""Claim to the names of its treatment and its control."""

Scorecards = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Arm to seed to scorecard in its JSON form."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: Key of the arm.
        says: What it is.
        compares: What is compared; of the rest no more is trained than it needs.
        changes: Where it differs from the recipe, by dotted name.
    """

    name: str
    says: str
    compares: Literal["detokenizer", "mllm", "adaptation"]
    changes: Mapping[str, Any] = field(default_factory=dict)


def arms(recipe: Recipe) -> tuple[Arm, ...]:
    """Returns the arms of the claims for a recipe; equal budgets are taken from it."""
    stages = recipe.mllm
    direct = {
        "mllm.reconstruct.steps": 0,
        "mllm.inpaint.steps": 0,
        "mllm.pair.steps": stages.reconstruct.steps + stages.inpaint.steps + stages.pair.steps,
        "mllm.pair.sets": {"pair": 1.0},
        "mllm.pair.keep_identical_text": False,
    }
    unet = {"detokenizer.denoiser": "unet"}
    return (
        Arm("staged", "stages reconstruct, inpaint, pair", "mllm"),
        Arm("direct", "direct tuning on pairs", "mllm", direct),
        Arm(
            "direct_text",
            "direct tuning with “keep the face identical”",
            "mllm",
            {**direct, "mllm.pair.keep_identical_text": True},
        ),
        Arm("cosine", "stages with the cosine distance", "mllm", {"mllm_model.regression": "cosine"}),
        Arm("new_pool", "stages with a new pooling connector", "mllm", _new_connector("pool")),
        Arm("new_resampler", "stages with a new resampler", "mllm", _new_connector("resampler")),
        Arm("adapted", "rounds, then adaptation", "adaptation"),
        Arm("unadapted", "rounds without adaptation", "adaptation", {"adapt.steps": 0}),
        Arm("dit_untrained", "DiT from scratch", "detokenizer", {"detokenizer.from_pretrained": False}),
        Arm("unet", "UNet from scratch", "detokenizer", unet),
        Arm(
            "unet_stage2", "UNet of stage 2 from scratch", "detokenizer", {**unet, "detokenizer.stage2": True}
        ),
        Arm(
            "unpooled",
            "DiT on 256 tokens",
            "detokenizer",
            {"detokenizer.image_tokens": 256, "encode.pooled": False},
        ),
    )


def _new_connector(kind: str) -> dict[str, Any]:
    """Returns the changes that read pictures by an untrained connector: all 256 tokens are there for either kind."""
    return {
        "mllm_model.input_connector": kind,
        "mllm_model.new_input_connector": True,
        "encode.pooled": False,
    }


def arm_recipe(recipe: Recipe, arm: Arm, seed: int) -> Recipe:
    """Returns what an arm trains with one seed."""
    return edit(recipe, {"seed": seed, **arm.changes})


def claim_results(recipe: Recipe, scorecards: Scorecards) -> list[ClaimResult]:
    """Returns what came of every claim.

    Args:
        recipe: Recipe of the run.
        scorecards: Of every arm, by seed.

    Raises:
        VisavisError: If a scorecard lacks a claim's figure or has no items for it.
    """
    notes = _notes(recipe, scorecards)
    results = []
    for claim in CLAIMS:
        treatment, control = (scorecards[name] for name in ARMS_OF[claim.claim_id])
        results.append(ClaimResult.from_scorecards(claim, treatment, control, notes[claim.claim_id]))
    return results


def _notes(recipe: Recipe, scorecards: Scorecards) -> dict[str, str]:
    """Returns what a reader must know of our side of each comparison."""
    stages, painter = recipe.mllm, recipe.detokenizer
    total = stages.reconstruct.steps + stages.inpaint.steps + stages.pair.steps
    started = _mean(scorecards["staged"], "reconstruction.psnr_db")
    found = {name: f"{_mean(by_seed, 'identity.detection_rate'):.0%}" for name, by_seed in scorecards.items()}
    budget = f"({painter.natural.steps} + {painter.people.steps})"
    return {
        "dit_over_unet": "Both begin with random weights and share data, connector, conditioning, objective, schedule,"
        f" batch and number of steps {budget}; neither was tuned for more"
        " than the other. The UNet is made to take about as long a step, not to have equally many parameters."
        " The paper's DiT begins with text-to-image weights, and so does the DiT of the run itself: it"
        f" reaches {started:.2f} dB, which is no part of this comparison, since the UNet has no such weights.",
        "condition_image_helps_unet": f"Equal budgets of {budget} steps. The condition image of a person is the picture"
        " that the conversation shows before; where there is none, it is blank.",
        "dit_over_unet_stage2": "The UNet of stage 2 sees another picture of the person, the DiT only the tokens.",
        "pooling_costs_detail": "Both begin with the pack's text-to-image weights; equally many steps.",
        "people_tuning_helps_faces": "One detokenizer, the run's own with its text-to-image start, before and after its"
        f" last {painter.people.steps} steps. What as many more steps on natural pictures would have given was not"
        " tried.",
        "stages_over_direct": f"Both train for {total} steps and paint with one detokenizer, tuned with the same seed;"
        " scored after the stage `pair`, before any tuning on rounds. Direct tuning sees pairs in every step, the"
        f" stages in the last {stages.pair.steps} only, as their share of {_share(stages.pair.sets)}. A face is found"
        f" in {found['staged']} of the pictures after the stages and in {found['direct']} after direct tuning; a"
        " picture without one counts as 0.",
        "text_helps_direct": "The arm that trains with the text is asked with it too. Everything else is equal, the"
        f" detokenizer included. A face is found in {found['direct_text']} of the pictures with the text and in"
        f" {found['direct']} without it; a picture without one counts as 0.",
        "mse_over_cosine": "The pack's MLLM was pretrained with the squared error, which favours it. The cosine leaves"
        " the length of a token free, on which the detokenizer depends. A face is found in"
        f" {found['cosine']} of the pictures after tuning by cosine.",
        "pooling_over_resampler": "The pack reads by pooling, so that both arms begin with an untrained connector,"
        f" which {total} steps must teach; a face is found in {found['new_pool']} of the pictures by pooling and in"
        f" {found['new_resampler']} by the resampler.",
        "adaptation_helps": f"One MLLM, tuned through all stages and rounds; its detokenizer after {recipe.adapt.steps}"
        f" more steps on what the MLLM says, and before them. A face is found in {found['adapted']} and"
        f" {found['unadapted']} of the pictures.",
    }


def _share(sets: Mapping[str, float]) -> str:
    return f"{sets.get('pair', 0.0) / sum(sets.values()):.0%}"


def _mean(by_seed: Mapping[int, Mapping[str, Any]], path: str) -> float:
    """Returns the mean over seeds of a figure; one that was measured on nothing counts as 0."""
    return sum(number_at(card, path) or 0.0 for card in by_seed.values()) / len(by_seed)
