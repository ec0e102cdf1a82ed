"""The paper's comparisons, tried again on the data of a run that is done: arms, seeds, and what comes of them.

An arm is the recipe of the run but for the one thing that is compared. All arms read the conversations and
tokens of that run; only the training depends on the seed.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from visavis.evaluation.claims import CLAIMS, ClaimResult, claims_markdown, write_claims
from visavis.evaluation.scorecard import number_at
from visavis.files import read_json, write_atomic
from visavis.launch.kfp_client import ROOT, pipeline_named
from visavis.launch.local import RunResult, carry_out, context_for
from visavis.recipes import Recipe, edit
from visavis.steps.contracts import Manifest
from visavis.steps.framework import log
from visavis.steps.score_arm import STEP as SCORING

CLAIMS_PAGE, CLAIMS_JSON = "claims.md", "claims.json"
ARMS_OF = {
    "dit_over_unet": ("dit_untrained", "unet"),
    "people_tuning_helps_faces": ("staged", "staged"),
    "stages_over_direct": ("staged", "direct"),
    "text_helps_direct": ("direct_text", "direct"),
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
        compares: The model that is compared; of the other one no more is trained than it needs.
        changes: Where it differs from the recipe, by dotted name.
    """

    name: str
    says: str
    compares: Literal["mllm", "detokenizer"]
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
    return (
        Arm("staged", "stages reconstruct, inpaint, pair", "mllm"),
        Arm("direct", "direct tuning on pairs", "mllm", direct),
        Arm(
            "direct_text",
            "direct tuning with “keep the face identical”",
            "mllm",
            {**direct, "mllm.pair.keep_identical_text": True},
        ),
        Arm("dit_untrained", "DiT from scratch", "detokenizer", {"detokenizer.from_pretrained": False}),
        Arm("unet", "UNet from scratch", "detokenizer", {"detokenizer.denoiser": "unet"}),
    )


def arm_recipe(recipe: Recipe, arm: Arm, seed: int) -> Recipe:
    """Returns what an arm trains with one seed."""
    return edit(recipe, {"seed": seed, **arm.changes})


def default_page() -> Path | None:
    """Returns `docs/claims.md` of the checkout if the working directory lies in it."""
    docs = ROOT / "docs"
    return docs / CLAIMS_PAGE if docs.is_dir() and Path.cwd().is_relative_to(ROOT) else None


def run_ablations(
    recipe: Recipe,
    run: RunResult,
    *,
    runs: Path = Path("runs"),
    seeds: int = 3,
    page: Path | None = None,
    console: Console | None = None,
) -> list[ClaimResult]:
    """Trains and scores every arm with every seed, and writes which claims hold.

    Finished steps are reused from `runs/store`, those of the run included; so a killed call goes on where it was.
    Each arm has a folder in that of the run, `arms/<arm>-<seed>`, and an MLflow run below the run's, with the
    tags `arm` and `seed`. `claims.md` and `claims.json` go into the folder of the run.

    Args:
        recipe: Recipe of the run.
        run: The run; its data serve all arms.
        runs: Folder of all runs.
        seeds: How many seeds, beginning with the recipe's; an interval needs 2.
        page: Where to write the page once more.
        console: Where to show the progress.

    Raises:
        VisavisError: If a step failed, or a figure could not be measured.
    """
    console = Console(file=(console or Console()).file, highlight=False)
    todo = [(arm, recipe.seed + number) for number in range(seeds) for arm in arms(recipe)]
    scorecards: dict[str, dict[int, dict[str, Any]]] = {}
    for number, (arm, seed) in enumerate(todo, start=1):
        console.print(f"\narm {number} of {len(todo)}: {arm.says}, seed {seed}", style="bold")
        folder = _run_arm(recipe, arm, seed, run, runs.resolve(), console)
        scorecards.setdefault(arm.name, {})[seed] = read_json(folder / "scorecard.json")
    results = claim_results(recipe, scorecards)
    context = _context(recipe, scorecards)
    files = [run.run_dir / CLAIMS_PAGE, run.run_dir / CLAIMS_JSON]
    write_claims(results, *files, context=context)
    if page is not None:
        write_atomic(page, claims_markdown(results, context=context))
    _tell_mlflow(run.tracking_uri, run.parent_run_id, files=files)
    return results


def _run_arm(recipe: Recipe, arm: Arm, seed: int, run: RunResult, runs: Path, console: Console) -> Path:
    """Runs the pipeline of one arm and returns the folder of its scorecard."""
    name = f"{arm.name}-{seed}"
    folder, changed = run.run_dir / "arms" / name, arm_recipe(recipe, arm, seed)
    (folder / "timings").mkdir(parents=True, exist_ok=True)
    changed.save(folder / "recipe.yaml")
    tags = {"arm": arm.name, "seed": str(seed), "mlflow.parentRunId": run.parent_run_id}
    known = {key: value for key, value in tags.items() if value}
    context = context_for(changed, runs, folder, f"{run.run_dir.name} {name}", known)
    manifests = run.run_dir / "manifests"
    arguments = {
        "recipe": changed.model_dump_json(),
        "conversations": str(manifests / "build_conversations.json"),
        "tokens": str(manifests / "encode_images.json"),
        "compares": arm.compares,
    }
    carry_out(pipeline_named("ablation"), arguments, context, console)
    scored = Manifest.read(folder / "manifests" / f"{SCORING}.json")
    _tell_mlflow(run.tracking_uri, context.parent_run_id, figures=scored.metrics)
    return scored.folder


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
    faces = {
        name: f"{_mean(scorecards[name], 'identity.detection_rate'):.0%}"
        for name in ("staged", "direct", "direct_text")
    }
    return {
        "dit_over_unet": "Both begin with random weights and share data, connector, conditioning, objective, schedule,"
        f" batch and number of steps ({painter.natural.steps} + {painter.people.steps}); neither was tuned for more"
        " than the other. The UNet is made to take about as long a step, not to have equally many parameters."
        " The paper's DiT begins with text-to-image weights, and so does the DiT of the run itself: it"
        f" reaches {started:.2f} dB, which is no part of this comparison, since the UNet has no such weights.",
        "people_tuning_helps_faces": "One detokenizer, the run's own with its text-to-image start, before and after its"
        f" last {painter.people.steps} steps. What as many more steps on natural pictures would have given was not"
        " tried.",
        "stages_over_direct": f"Both train for {total} steps and paint with one detokenizer, tuned with the same seed;"
        " scored after the stage `pair`, before any tuning on rounds. Direct tuning sees pairs in every step, the"
        f" stages in the last {stages.pair.steps} only, as their share of {_share(stages.pair.sets)}. A face is found"
        f" in {faces['staged']} of the pictures after the stages and in {faces['direct']} after direct tuning; a"
        " picture without one counts as 0.",
        "text_helps_direct": "The arm that trains with the text is asked with it too. Everything else is equal, the"
        f" detokenizer included. A face is found in {faces['direct_text']} of the pictures with the text and in"
        f" {faces['direct']} without it; a picture without one counts as 0.",
    }


def _share(sets: Mapping[str, float]) -> str:
    return f"{sets.get('pair', 0.0) / sum(sets.values()):.0%}"


def _mean(by_seed: Mapping[int, Mapping[str, Any]], path: str) -> float:
    """Returns the mean over seeds of a figure; one that was measured on nothing counts as 0."""
    return sum(number_at(card, path) or 0.0 for card in by_seed.values()) / len(by_seed)


def _context(recipe: Recipe, scorecards: Scorecards) -> str:
    """Returns a sentence on the size of it all."""
    seeds = sorted(scorecards["staged"])
    counts = scorecards["staged"][seeds[0]]["counts"]
    return (
        f"Recipe `{recipe.name}`, pack `{recipe.pack}`, seeds {seeds[0]} to {seeds[-1]}, on {os.cpu_count()} CPU cores"
        f" ({platform.machine()}). Test split: {counts['single_round']} single rounds of {counts['people']} people,"
        f" {counts['reconstruction']} pictures to reconstruct."
    )


def _tell_mlflow(
    uri: str, run_id: str, *, files: Iterable[Path] = (), figures: Mapping[str, float] | None = None
) -> None:
    """Adds files and figures to a run; they lie on disk already, so a dead tracker is only a warning."""
    from visavis.tracking import client_for

    if not run_id:
        return
    try:
        from mlflow.entities import Metric

        client, now = client_for(uri), int(time.time() * 1000)
        client.log_batch(run_id, [Metric(name, value, now, 0) for name, value in (figures or {}).items()])
        for file in files:
            client.log_artifact(run_id, str(file))
    except Exception as error:  # whatever MLflow raises
        log.warning("MLflow did not take what came of the comparisons: %s", error)
