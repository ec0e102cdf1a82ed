"""After release: the champion is scored on fresh inputs and compared with its own past; drift is told."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import write_json
from visavis.steps.contracts import RunContext
from visavis.steps.framework import Manifest, StepJob, StepResult, log, run_step
from visavis.steps.run_files import DRIFT, SCORECARD
from visavis.steps.scoring import SECTION, champion_of, score_version, scored_items

if TYPE_CHECKING:
    from visavis.evaluation.drift import Drift
    from visavis.evaluation.scorecard import Scorecard
    from visavis.registry.versions import Version

EVENT = "visavis.drift"
_VERSION_TAG, _AT_TAG = "monitor.version", "monitor.at"


def monitor_champion(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`. The same champion on the same inputs is looked at once."""
    run = RunContext.model_validate_json(context)

    def weights() -> str:
        version = champion_of(run.tracking_uri, recipe)
        return "" if version is None else f"{version.uri} {version.tags.get('weights.sha256', '')}"

    section = (*SECTION, "registration.name", "monitor")
    return run_step("monitor_champion", _body, recipe, context, inputs, output, section, extra=weights)


def _body(job: StepJob) -> StepResult:
    from visavis.evaluation.drift import drift

    version = champion_of(job.context.tracking_uri, job.recipe_json)
    if version is None:
        raise VisavisError(
            f"model {job.recipe.registration.name} has no champion to look at",
            fix="`visavis promote` makes one",
        )
    scored = score_version(job, version)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = drift(scored.scorecard, _past(job, version), job.recipe.monitor)
    drifted = [row for row in found if row.drifted]
    scored.scorecard.write(job.work / SCORECARD)
    report = {
        "version": version.uri,
        "at": now,
        "drifted": bool(drifted),
        "figures": [r.to_dict() for r in found],
    }
    write_json(job.work / DRIFT, report)
    for row in found:
        log.info("%s", row.words())
    if not found:
        log.info("there is no earlier scorecard of %s: this one is the first", version.uri)
    _tell(job, version, drifted, now)
    for name in (SCORECARD, DRIFT):
        job.tracker.log_artifact(job.work / name)
    job.tracker.set_tags({_VERSION_TAG: version.uri, _AT_TAG: now, "drift": str(bool(drifted)).lower()})
    counts = scored_items(job, scored)
    return StepResult(counts, {**scored.scorecard.metrics(), "drifted": float(len(drifted))})


def _past(job: StepJob, version: Version) -> list[tuple[str, Scorecard]]:
    """Returns the scorecards of the version's release and of the last look at it, as far as they are known."""
    from visavis.tracking import client_for

    client = client_for(job.context.tracking_uri)
    found: list[tuple[str, Scorecard]] = []
    run_id = client.get_model_version(version.name, version.version).run_id
    if run_id and (card := _scorecard(client, run_id)):
        found.append(("release", card))
    experiment = client.get_experiment_by_name(job.context.experiment)
    if experiment is not None:
        looks = client.search_runs(
            [experiment.experiment_id],
            f"tags.`{_VERSION_TAG}` = '{version.uri}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        found += [
            (look.data.tags[_AT_TAG], card)
            for look in looks
            if (card := _scorecard(client, look.info.run_id))
        ]
    return found


def _scorecard(client: Any, run_id: str) -> Scorecard | None:
    """Returns the scorecard among the files of an MLflow run."""
    from visavis.evaluation.scorecard import Scorecard

    if SCORECARD not in {file.path for file in client.list_artifacts(run_id)}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Scorecard.read(Path(client.download_artifacts(run_id, SCORECARD, folder)))


def _tell(job: StepJob, version: Version, drifted: list[Drift], now: str) -> None:
    """Tags the version, and tells the webhook of drift."""
    from visavis.tracking import client_for
    from visavis.tracking.webhook import notify

    client = client_for(job.context.tracking_uri)
    words = ", ".join(dict.fromkeys(row.path for row in drifted)) or "none"
    for tag, value in (("drift", words), ("drift.at", now)):
        client.set_model_version_tag(version.name, version.version, tag, value)
    if drifted and job.recipe.monitor.webhook:
        content = {
            "model": version.uri,
            "at": now,
            "run_id": job.context.parent_run_id,
            "figures": [row.to_dict() for row in drifted],
        }
        notify(job.recipe.monitor.webhook, EVENT, content)
        log.info("told %s", job.recipe.monitor.webhook)
