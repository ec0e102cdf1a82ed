"""Step 14: the scorecard becomes a decision that names the rules which failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from visavis.files import read_json, write_json
from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, log, run_step
from visavis.steps.run_files import CHAMPION, DECISION, DIFFERENCES

if TYPE_CHECKING:
    from visavis.registry import Rival


def gate_model(recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    return run_step("gate_model", _body, recipe, context, inputs, output, ("gate",))


def _body(job: StepJob) -> StepResult:
    from visavis.data.ledger import Ledger
    from visavis.registry import decide

    scorecard = read_json(job.folder("scorecard") / "scorecard.json")
    decision = decide(scorecard, _rival(job.folder("champion")), job.recipe.gate)
    write_json(job.work / DECISION, decision.model_dump(mode="json"))
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


def _rival(folder: Path) -> Rival | None:
    from visavis.evaluation.intervals import Figure
    from visavis.registry import Rival

    version = read_json(folder / CHAMPION)["version"]
    if version is None:
        return None
    rows = read_json(folder / DIFFERENCES)
    figures = {path: Figure.from_dict(row) for path, row in rows.items()}
    return Rival(read_json(folder / "scorecard.json"), figures, version)
