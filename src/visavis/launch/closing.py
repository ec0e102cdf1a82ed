"""The end of a run on a cluster: nothing is left that holds a GPU, the summary is written, somebody is told."""

from __future__ import annotations

from typing import Any

from visavis.errors import VisavisError
from visavis.files import read_json
from visavis.launch.trainjob import delete_jobs
from visavis.mirror import mirrored
from visavis.steps.close_run import close_run as summarise
from visavis.steps.contracts import RunContext
from visavis.steps.framework import log
from visavis.steps.run_files import COST, DECISION, PROMOTION

EVENT = "visavis.run"


def close_run(recipe: str, context: str, succeeded: bool, run_id: str = "") -> None:
    """Closes a run; what goes wrong here is a warning, since the run itself is over.

    Args:
        recipe: Resolved recipe as JSON.
        context: `RunContext` as JSON.
        succeeded: Whether all steps did.
        run_id: Kubeflow's id of the run.
    """
    run = RunContext.model_validate_json(context)
    if run.cluster.training.run_as == "trainjob":
        _delete(run)
    summarise(recipe, context, succeeded)
    if run.cluster.webhook:
        _tell(run, succeeded, run_id)


def _delete(run: RunContext) -> None:
    """Deletes what is left of the run's jobs: a failed one that was kept, or one whose step was cancelled."""
    try:
        if names := delete_jobs(run):
            log.info("deleted %s", ", ".join(names))
    except VisavisError as error:
        log.warning("the jobs of this run could not be deleted: %s", error)


def _tell(run: RunContext, succeeded: bool, run_id: str) -> None:
    from visavis.tracking.webhook import notify

    try:
        notify(run.cluster.webhook, EVENT, _content(run, succeeded, run_id))
        log.info("told %s", EVENT)
    except VisavisError as error:
        log.warning("%s", error)


def _content(run: RunContext, succeeded: bool, run_id: str) -> dict[str, Any]:
    """Returns what is told of a run: how it ended, why, what it cost, and where to look."""
    with mirrored(run.run_dir, "*") as folder:
        names = [name for name in (COST, DECISION, PROMOTION) if (folder / name).is_file()]
        files = {name: read_json(folder / name) for name in names}
        failures = [read_json(path) for path in sorted((folder / "failures").glob("*.json"))]
    links = {"pipeline": run.cluster.run_link.replace("{run}", run_id), "mlflow": _mlflow_link(run)}
    return {
        "run": run.run_name,
        "run_id": run_id,
        "succeeded": succeeded,
        "failures": [{name: row[name] for name in ("step", "message", "fix")} for row in failures],
        "cost": files.get(COST, {}).get("run", {}),
        "gate": files.get(DECISION, {}).get("passed"),
        "promotion": files.get(PROMOTION, {}).get("words", ""),
        "links": {name: link for name, link in links.items() if link},
    }


def _mlflow_link(run: RunContext) -> str:
    """Returns the page of the run in MLflow, if MLflow has pages."""
    if not run.tracking_uri.startswith("http") or not run.parent_run_id:
        return ""
    from visavis.tracking import client_for, run_page

    try:
        experiment = client_for(run.tracking_uri).get_run(run.parent_run_id).info.experiment_id
    except Exception as error:  # whatever MLflow raises
        log.warning("MLflow did not tell the page of the run: %s", error)
        return ""
    return run_page(run.tracking_uri, experiment, run.parent_run_id)
