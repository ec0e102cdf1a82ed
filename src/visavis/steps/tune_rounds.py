"""Step 10: multi-round tuning on chats by name; all rounds of a chat in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.steps.framework import ENGINE, Manifest, StepJob, StepResult, run_step
from visavis.steps.tune_mllm import tune_stage


def tune_rounds(recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    return run_step(
        "tune_rounds",
        _body,
        recipe,
        context,
        inputs,
        output,
        ("rounds", "mllm_model", *ENGINE, "pack.mllm"),
    )


def _body(job: StepJob) -> StepResult:
    return tune_stage(job, job.recipe.rounds)
