"""Step 13: the champion is scored on the items of the candidate, in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visavis.files import read_json, write_json
from visavis.steps.contracts import RunContext
from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, log, run_step
from visavis.steps.register_model import MODEL_FOLDER
from visavis.steps.run_files import CHAMPION, DIFFERENCES, VERSION, WEIGHTS_TAG
from visavis.steps.scoring import SECTION, champion_of, score_version


def evaluate_champion(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`. It asks the registry each time, which version is the champion."""
    run = RunContext.model_validate_json(context)

    def weights() -> str:
        version = champion_of(run.tracking_uri, recipe)
        return "" if version is None else f"{version.uri} {version.tags.get('weights.sha256', '')}"

    section = (*SECTION, "registration.name")
    return run_step("evaluate_champion", _body, recipe, context, inputs, output, section, extra=weights)


def _body(job: StepJob) -> StepResult:
    from visavis.data.ledger import Ledger
    from visavis.evaluation.scorecard import Scorecard

    version = champion_of(job.context.tracking_uri, job.recipe_json)
    ledger = Ledger(job.name)
    candidate = job.folder("scorecard")
    if version is None:
        write_json(job.work / CHAMPION, {"version": None})
        ledger.drop("champion", "no_champion")
        log.info("model %s has no champion: there is nothing to compare with", job.recipe.registration.name)
        return StepResult(ledger.close(job.work / LEDGER_NAME, 1))
    write_json(job.work / CHAMPION, {"version": version.version, "uri": version.uri})
    if version.tags.get(WEIGHTS_TAG) == _weights_of(candidate):
        log.info("%s is this very model", version.uri)
        scorecard = Scorecard.read(candidate / "scorecard.json")
        theirs = Scorecard.read_items(candidate / "items.jsonl")
    else:
        scorecard = score_version(job, version).scorecard
        theirs = dict(scorecard.items)
        scorecard.write_items(job.work / "items.jsonl")
    scorecard.write(job.work / "scorecard.json")
    metrics = _compared(job, candidate, theirs)
    job.tracker.log_artifact(job.work / "scorecard.json", "champion")
    job.tracker.set_tags({"champion.version": version.uri})
    ledger.keep("champion", version=version.uri)
    return StepResult(ledger.close(job.work / LEDGER_NAME, 1), metrics)


def _weights_of(candidate: Path) -> str:
    """Returns the hash of the weights that were scored: a model of this run, or a version of the registry."""
    from visavis.chat.weights import weights_digest

    if (candidate / VERSION).is_file():
        return str(read_json(candidate / VERSION)[WEIGHTS_TAG])
    return weights_digest(candidate / MODEL_FOLDER)


def _compared(job: StepJob, candidate: Path, theirs: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Writes candidate minus champion, paired by item; returns the differences as metrics."""
    from visavis.evaluation.evaluate import compare
    from visavis.evaluation.scorecard import Scorecard

    ours = Scorecard.read_items(candidate / "items.jsonl")
    figures = compare(ours, theirs, job.recipe.evaluate)
    write_json(job.work / DIFFERENCES, {path: figure.to_dict() for path, figure in figures.items()})
    return {f"versus_champion.{path}": f.value for path, f in figures.items() if f.value is not None}
