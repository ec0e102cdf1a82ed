"""Scores another system on the test split of a run; `visavis evaluate --system` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.steps.framework import Manifest, StepJob, StepResult, run_step
from visavis.steps.scoring import SECTION, finished, score_system

STEP = "evaluate_system"


def evaluate_system(
    recipe: str,
    context: str,
    inputs: Mapping[str, str | Path],
    output: str | Path,
    system: str,
    pack: str,
) -> Manifest:
    """Runs the step; see `visavis.steps`.

    Args:
        recipe: Resolved recipe as JSON.
        context: `RunContext` as JSON.
        inputs: Manifest file of `tokens`.
        output: Manifest file to write.
        system: Name of the system, or `module:Class`.
        pack: Pack of its weights.
    """
    from visavis.files import sha256_file
    from visavis.packs import load_pack
    from visavis.packs.manifest import MANIFEST_NAME

    weights = load_pack(pack)

    def body(job: StepJob) -> StepResult:
        from visavis.data.published.tokens import TokenStore
        from visavis.evaluation.systems import open_system
        from visavis.steps.sheets import cases_of

        about = {"system": system, "pack": pack, "rounds": "history given"}
        opened = open_system(system, weights)
        scored = score_system(job, opened, TokenStore.open(job.folder("tokens")), about)
        job.tracker.set_tags({"system": system})
        return finished(job, scored, system, cases_of(scored))

    identity = f"{system} {sha256_file(weights.root / MANIFEST_NAME)}"
    return run_step(STEP, body, recipe, context, inputs, output, SECTION, extra=lambda: identity)
