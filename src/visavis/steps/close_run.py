"""The exit handler: gathers what a run leaves behind, succeeded or not, and ends its MLflow run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visavis.files import read_json, write_atomic, write_json
from visavis.steps.contracts import RunContext
from visavis.steps.framework import log
from visavis.steps.run_files import (
    CHAT,
    FUNNEL,
    FUNNEL_PLOT,
    REPORT,
    SCORECARD,
    STATUS,
    TIMINGS,
    funnel_of,
    read_manifests,
    timings_of,
)

_PICTURES = {
    "Three rounds of talk": CHAT,
    "People through the stages": "stages.png",
    "Pictures and their reconstructions": "reconstruction.png",
}
"""What the report shows of the evaluation."""


def close_run(recipe: str, context: str, succeeded: bool) -> None:
    """Writes the run's summary files and reports them to MLflow; a dead tracker is only a warning.

    Args:
        recipe: Resolved recipe as JSON.
        context: `RunContext` as JSON.
        succeeded: Whether all steps did.
    """
    run = RunContext.model_validate_json(context)
    folder = Path(run.run_dir)
    funnel, timings = funnel_of(folder), timings_of(folder)
    write_json(folder / FUNNEL, funnel)
    write_json(folder / TIMINGS, timings)
    write_json(folder / STATUS, {"status": "succeeded" if succeeded else "failed", "run": run.run_name})
    if funnel["clips"]:
        from visavis.data.funnel import plot_funnel

        plot_funnel(funnel["clips"], folder / FUNNEL_PLOT)
    _collect(folder, funnel, timings)
    if not run.tracking_uri or not run.parent_run_id:
        return
    try:
        _report(run, folder, json.loads(recipe), timings, succeeded)
    except Exception as error:  # the run is done; its tracker must not turn it into a failure
        log.warning("MLflow did not take the summary of the run (%s); it lies in %s", error, folder)


def _collect(folder: Path, funnel: dict[str, Any], timings: dict[str, Any]) -> None:
    """Takes scorecard and picture of a chat out of the store, and writes the report of the whole run."""
    evaluation = read_manifests(folder).get("evaluate_model")
    if evaluation is None:
        return
    for name in (SCORECARD, CHAT):
        if (evaluation.folder / name).is_file():
            shutil.copyfile(evaluation.folder / name, folder / name)
    if (folder / SCORECARD).is_file():
        _write_report(folder, evaluation.folder, funnel, timings)


def _write_report(folder: Path, evaluation: Path, funnel: dict[str, Any], timings: dict[str, Any]) -> None:
    from PIL import Image

    from visavis.evaluation.report import write_report
    from visavis.evaluation.scorecard import Scorecard

    places = {words: evaluation / name for words, name in _PICTURES.items()}
    places["From clips to chats"] = folder / FUNNEL_PLOT
    pictures = {words: Image.open(path) for words, path in places.items() if path.is_file()}
    scorecard = Scorecard.read(folder / SCORECARD)
    page = write_report(f"visavis: {folder.name}", scorecard, pictures, funnel=funnel, timings=timings)
    write_atomic(folder / REPORT, page)


def _report(
    run: RunContext,
    folder: Path,
    recipe: Mapping[str, Any],
    timings: dict[str, Any],
    succeeded: bool,
) -> None:
    from mlflow.entities import Metric, Param

    from visavis.tracking import client_for, flatten

    client, parent = client_for(run.tracking_uri), run.parent_run_id
    params = [Param(name, str(value)[:5_000]) for name, value in flatten(recipe).items()]
    for start in range(0, len(params), 100):
        client.log_batch(parent, params=params[start : start + 100])
    for name in (FUNNEL, FUNNEL_PLOT, TIMINGS, SCORECARD, CHAT, REPORT):
        if (folder / name).is_file():
            client.log_artifact(parent, str(folder / name))
    figures = {"seconds": timings["seconds"], "peak_rss_mb": timings["peak_rss_mb"]}
    if (folder / SCORECARD).is_file():
        from visavis.evaluation.scorecard import Scorecard

        figures |= Scorecard.read(folder / SCORECARD).metrics()
    now = int(time.time() * 1000)
    client.log_batch(parent, metrics=[Metric(name, value, now, 0) for name, value in figures.items()])
    _note_reused(client, run, timings)
    client.set_terminated(parent, "FINISHED" if succeeded else "FAILED")


def _note_reused(client: Any, run: RunContext, timings: dict[str, Any]) -> None:
    """Makes a child run for each reused step, which says in which run the work was done."""
    experiment = client.get_run(run.parent_run_id).info.experiment_id
    for step in timings["steps"]:
        if step["status"] != "reused":
            continue
        record = Path(run.store) / step["step"] / f"{step['key']}.run.json"
        tags = {"mlflow.parentRunId": run.parent_run_id, "reused": "true", "step.key": step["key"]}
        if record.is_file():
            tags["reused.from"] = read_json(record)["run_id"]
        child = client.create_run(experiment, tags=tags, run_name=f"{step['step']} (reused)")
        client.set_terminated(child.info.run_id)
