"""Scores any registered version on the test split of a run; `visavis evaluate` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.files import write_atomic, write_json
from visavis.steps.contracts import RunContext
from visavis.steps.framework import Manifest, StepJob, StepResult, run_step
from visavis.steps.run_files import REPORT, VERSION, WEIGHTS_TAG
from visavis.steps.scoring import SECTION, finished, score_version

STEP = "evaluate_version"


def evaluate_version(
    recipe: str,
    context: str,
    inputs: Mapping[str, str | Path],
    output: str | Path,
    version: str,
    report: str | Path | None = None,
) -> Manifest:
    """Runs the step; see `visavis.steps`.

    Args:
        recipe: Resolved recipe as JSON.
        context: `RunContext` as JSON.
        inputs: Manifest file of `tokens`.
        output: Manifest file to write.
        version: `models:/NAME/NUMBER` or `models:/NAME@ALIAS`.
        report: HTML file to write the report to as well.
    """
    from visavis.registry.versions import find
    from visavis.steps.sheets import cases_of

    run = RunContext.model_validate_json(context)
    found = find(version, tracking_uri=run.tracking_uri)

    def body(job: StepJob) -> StepResult:
        scored = score_version(job, found)
        write_json(job.work / VERSION, {"uri": found.uri, WEIGHTS_TAG: found.tags.get(WEIGHTS_TAG, "")})
        job.tracker.set_tags({"model.version": found.uri})
        return finished(job, scored, found.uri, cases_of(scored))

    weights = f"{found.uri} {found.tags.get(WEIGHTS_TAG, '')}"
    manifest = run_step(STEP, body, recipe, context, inputs, output, SECTION, extra=lambda: weights)
    if report is not None:
        write_atomic(Path(report), manifest.file(REPORT).read_bytes())
    return manifest
