"""Scores any registered version on the test split of a run; `visavis evaluate` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.files import write_atomic, write_json
from visavis.steps.contracts import RunContext
from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, run_step
from visavis.steps.run_files import REPORT, SCORECARD, SHEETS, VERSION, WEIGHTS_TAG
from visavis.steps.scoring import SECTION, Scored, score_version

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

    run = RunContext.model_validate_json(context)
    found = find(version, tracking_uri=run.tracking_uri)

    def body(job: StepJob) -> StepResult:
        scored = score_version(job, found)
        write_json(job.work / VERSION, {"uri": found.uri, WEIGHTS_TAG: found.tags.get(WEIGHTS_TAG, "")})
        job.tracker.set_tags({"model.version": found.uri})
        return finished(job, scored, found.uri)

    weights = f"{found.uri} {found.tags.get(WEIGHTS_TAG, '')}"
    manifest = run_step(STEP, body, recipe, context, inputs, output, SECTION, extra=lambda: weights)
    if report is not None:
        write_atomic(Path(report), (manifest.folder / REPORT).read_text(encoding="utf-8"))
    return manifest


def finished(job: StepJob, scored: Scored, title: str) -> StepResult:
    """Writes scorecard, items, report and ledger of an evaluation on its own."""
    from visavis.data.ledger import Ledger
    from visavis.evaluation.report import write_report
    from visavis.steps.sheets import close_up_cases, single_round_cases

    scored.scorecard.write(job.work / SCORECARD)
    scored.scorecard.write_items(job.work / "items.jsonl")
    pictures = {SHEETS["cases"]: single_round_cases(scored), SHEETS["round_cases"]: close_up_cases(scored)}
    write_atomic(job.work / REPORT, write_report(title, scored.scorecard, pictures))
    for name in (SCORECARD, REPORT):
        job.tracker.log_artifact(job.work / name)
    ledger = Ledger(job.name)
    for sample in (*scored.singles, *scored.chats):
        ledger.keep(sample["id"])
    counts = ledger.close(job.work / LEDGER_NAME, len(scored.singles) + len(scored.chats))
    return StepResult(counts, scored.scorecard.metrics())
