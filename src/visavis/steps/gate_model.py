"""Step 11: the scorecard becomes a decision that names the rules which failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.files import read_json, write_json
from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, log, run_step

CHAMPION_SCORECARD = "champion_scorecard.json"
"""Name under which `evaluate_model` leaves the champion's scorecard, if there was a champion to score."""


def gate_model(recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    return run_step("gate_model", _body, recipe, context, inputs, output, ("gate",))


def _body(job: StepJob) -> StepResult:
    from visavis.data.ledger import Ledger
    from visavis.registry import decide

    folder = job.folder("scorecard")
    champion = folder / CHAMPION_SCORECARD
    decision = decide(
        read_json(folder / "scorecard.json"),
        read_json(champion) if champion.is_file() else None,
        job.recipe.gate,
    )
    write_json(job.work / "decision.json", decision.model_dump(mode="json"))
    ledger = Ledger(job.name)
    model = job.inputs["scorecard"].key
    if decision.passed:
        ledger.keep(model)
    else:
        ledger.drop(model, "gate_failed", rules=list(decision.failed))
    counts = ledger.close(job.work / LEDGER_NAME, 1)
    job.tracker.log_text(decision.words() + "\n", "decision.txt")
    job.tracker.set_tags({"gate": "passed" if decision.passed else "failed"})
    log.info("%s", decision.words())
    return StepResult(counts, {"passed": float(decision.passed)})
