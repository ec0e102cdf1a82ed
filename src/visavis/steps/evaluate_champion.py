"""Step 13: the champion is scored on the items of the candidate, in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import read_json, write_json
from visavis.steps.contracts import RunContext
from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, log, run_step
from visavis.steps.register_model import MODEL_FOLDER
from visavis.steps.scoring import SECTION

if TYPE_CHECKING:
    from visavis.models.detokenizer import Detokenizer
    from visavis.registry.versions import Version
    from visavis.steps.items import Judged

CHAMPION, DIFFERENCES = "champion.json", "differences.json"
"""Which version it is (null: there is none), and candidate minus champion by path."""


def evaluate_champion(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`. It asks the registry each time, which version is the champion."""
    run = RunContext.model_validate_json(context)

    def weights() -> str:
        version = _champion(run.tracking_uri, recipe)
        return "" if version is None else f"{version.uri} {version.tags.get('weights.sha256', '')}"

    section = (*SECTION, "registration.name")
    return run_step("evaluate_champion", _body, recipe, context, inputs, output, section, extra=weights)


def _body(job: StepJob) -> StepResult:
    from visavis.chat.weights import weights_digest
    from visavis.data.ledger import Ledger
    from visavis.evaluation.scorecard import Scorecard

    version = _champion(job.context.tracking_uri, job.recipe_json)
    ledger = Ledger(job.name)
    candidate = job.folder("scorecard")
    if version is None:
        write_json(job.work / CHAMPION, {"version": None})
        ledger.drop("champion", "no_champion")
        log.info("model %s has no champion: there is nothing to compare with", job.recipe.registration.name)
        return StepResult(ledger.close(job.work / LEDGER_NAME, 1))
    write_json(job.work / CHAMPION, {"version": version.version, "uri": version.uri})
    if version.tags.get("weights.sha256") == weights_digest(candidate / MODEL_FOLDER):
        log.info("%s is this very model", version.uri)
        scorecard = Scorecard.read(candidate / "scorecard.json")
        theirs = Scorecard.read_items(candidate / "items.jsonl")
    else:
        scorecard = _scored(job, version)
        theirs = dict(scorecard.items)
        scorecard.write_items(job.work / "items.jsonl")
    scorecard.write(job.work / "scorecard.json")
    metrics = _compared(job, candidate, theirs)
    job.tracker.log_artifact(job.work / "scorecard.json", "champion")
    job.tracker.set_tags({"champion.version": version.uri})
    ledger.keep("champion", version=version.uri)
    return StepResult(ledger.close(job.work / LEDGER_NAME, 1), metrics)


def _champion(tracking_uri: str, recipe: str) -> Version | None:
    import json

    from visavis.registry.versions import CHAMPION as ALIAS
    from visavis.registry.versions import find_if_there

    if not tracking_uri:
        return None
    name = json.loads(recipe)["registration"]["name"]
    return find_if_there(f"models:/{name}@{ALIAS}", tracking_uri=tracking_uri)


def _scored(job: StepJob, version: Version) -> Any:
    from visavis.chat.model import MODEL_FILE, ChatModel
    from visavis.data.published.tokens import TokenStore
    from visavis.loading import resolve
    from visavis.steps.scoring import score

    folder = resolve(version.uri, tracking_uri=job.context.tracking_uri)
    pack = read_json(folder / MODEL_FILE)["pack"]
    if pack != job.recipe.pack:
        raise VisavisError(
            f"the champion {version.uri} was made of pack {pack!r}, and this run uses {job.recipe.pack!r}: "
            "they do not read the same image tokens",
            fix="register models of another pack under another name: registration.name=...",
        )
    model = ChatModel.from_pretrained(folder)
    assert model.detokenizer is not None
    about = {"version": version.uri, "pack": pack, "rounds": "history given"}
    painters: dict[Judged, Detokenizer] = {"after": model.detokenizer, "served": model.detokenizer}
    return score(job, model, TokenStore.open(job.folder("tokens")), painters, about).scorecard


def _compared(job: StepJob, candidate: Path, theirs: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Writes candidate minus champion, paired by item; returns the differences as metrics."""
    from visavis.evaluation.evaluate import compare
    from visavis.evaluation.scorecard import Scorecard

    ours = Scorecard.read_items(candidate / "items.jsonl")
    figures = compare(ours, theirs, job.recipe.evaluate)
    write_json(job.work / DIFFERENCES, {path: figure.to_dict() for path, figure in figures.items()})
    return {f"versus_champion.{path}": f.value for path, f in figures.items() if f.value is not None}
