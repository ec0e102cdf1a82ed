"""The exit handler: gathers what a run leaves behind, succeeded or not, and ends its MLflow run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.cluster.cost import Cost, costs_of_run
from visavis.files import read_json, write_atomic, write_json
from visavis.mirror import mirrored
from visavis.steps.contracts import Manifest, RunContext
from visavis.steps.framework import log
from visavis.steps.run_files import (
    CHAT,
    COST,
    CURVES_PLOT,
    DECISION,
    DIFFERENCES,
    DRIFT,
    FUNNEL,
    FUNNEL_PLOT,
    PROMOTION,
    REPORT,
    SCORECARD,
    SCORECARD_PLOT,
    SHEETS,
    STATUS,
    TIMINGS,
    curves_of,
    funnel_of,
    read_manifests,
    timings_of,
)
from visavis.steps.store import RECORD_SUFFIX, open_store
from visavis.tracking import Post
from visavis.tracking.tracker import FOLDER

if TYPE_CHECKING:
    from visavis.evaluation.report import Verdict

_SENT = (
    *(FUNNEL, FUNNEL_PLOT, TIMINGS, CURVES_PLOT, SCORECARD, SCORECARD_PLOT, CHAT, REPORT),
    *(DECISION, PROMOTION, DRIFT, COST),
)
_TAKEN = {
    "evaluate_model": (SCORECARD, CHAT),
    "gate_model": (DECISION,),
    "promote_model": (PROMOTION,),
    "evaluate_version": (SCORECARD, REPORT),
    "promote_version": (PROMOTION,),
    "monitor_champion": (SCORECARD, DRIFT),
}
"""Files of the steps' results that the run's folder holds too."""
_DATA = {"curate_clips": "clips", "build_conversations": "conversations"}
"""Steps whose results are the data of the whole run, and what they are to it."""


def close_run(recipe: str, context: str, succeeded: bool) -> None:
    """Writes the run's summary files and reports them to MLflow; a dead tracker is only a warning.

    Args:
        recipe: Resolved recipe as JSON.
        context: `RunContext` as JSON.
        succeeded: Whether all steps did.
    """
    run = RunContext.model_validate_json(context)
    with mirrored(run.run_dir, "*") as folder:
        timings = timings_of(folder)
        worked = [(step["step"], step["key"]) for step in timings["steps"] if step["key"]]
        with open_store(run.store).notes(worked) as notes:
            if not run.relayed:
                _send_rest(run, folder)
            _close(run, folder, notes, json.loads(recipe), timings, succeeded)


def _send_rest(run: RunContext, folder: Path) -> None:
    """Sends MLflow what the steps could not: it was away when they ended, or they were killed."""
    if run.tracking_uri and any((folder / FOLDER).glob("*.jsonl")):
        Post(run, folder / FOLDER).start().close()


def _close(
    run: RunContext,
    folder: Path,
    notes: Path,
    recipe: Mapping[str, Any],
    timings: dict[str, Any],
    succeeded: bool,
) -> None:
    funnel = funnel_of(folder)
    costs = costs_of_run(run.cluster, folder, timings["steps"])
    if run.cluster.profiles:
        total = sum(costs.values(), Cost()).metrics()
        rows = {step: cost.metrics() for step, cost in costs.items()}
        write_json(folder / COST, {"run": total, "steps": rows})
    write_json(folder / FUNNEL, funnel)
    write_json(folder / TIMINGS, timings)
    write_json(folder / STATUS, {"status": "succeeded" if succeeded else "failed", "run": run.run_name})
    if funnel["clips"]:
        from visavis.data.funnel import plot_funnel

        plot_funnel(funnel["clips"], folder / FUNNEL_PLOT)
    if curves := curves_of(folder, notes):
        from visavis.evaluation.plots import training_curves

        panels = {step.replace("_", " "): series for step, series in curves.items()}
        training_curves(panels).savefig(folder / CURVES_PLOT)
    _collect(folder, funnel, timings)
    if not run.tracking_uri or not run.parent_run_id:
        return
    try:
        _report(run, folder, notes, recipe, timings, succeeded)
    except Exception as error:  # the run is done; its tracker must not turn it into a failure
        log.warning("MLflow did not take the summary of the run (%s); it lies in %s", error, folder)


def _collect(folder: Path, funnel: dict[str, Any], timings: dict[str, Any]) -> None:
    """Takes scorecard, verdict and the picture of a chat out of the store; writes the report of the whole run."""
    manifests = read_manifests(folder)
    for step, names in _TAKEN.items():
        for name in names if step in manifests else ():
            if (file := manifests[step].file(name)).is_file():
                shutil.copyfile(file, folder / name)
    if "evaluate_model" in manifests and (folder / SCORECARD).is_file():
        _write_report(folder, manifests, funnel, timings)


def _write_report(
    folder: Path, manifests: Mapping[str, Manifest], funnel: dict[str, Any], timings: dict[str, Any]
) -> None:
    from PIL import Image

    from visavis.evaluation.plots import scorecard_plot
    from visavis.evaluation.report import write_report
    from visavis.evaluation.scorecard import Scorecard

    evaluation = manifests["evaluate_model"]
    places = {words: evaluation.file(f"{name}.png") for name, words in SHEETS.items()}
    places |= {"From clips to chats": folder / FUNNEL_PLOT, "Losses": folder / CURVES_PLOT}
    pictures = {words: Image.open(path) for words, path in places.items() if path.is_file()}
    scorecard = Scorecard.read(folder / SCORECARD)
    scorecard_plot(scorecard).savefig(folder / SCORECARD_PLOT)
    page = write_report(
        f"visavis: {folder.name}",
        scorecard,
        pictures,
        verdict=_verdict(folder, manifests),
        funnel=funnel,
        timings=timings,
    )
    write_atomic(folder / REPORT, page)


def _verdict(folder: Path, manifests: Mapping[str, Manifest]) -> Verdict | None:
    """Returns what the gate said, and how the candidate compares with the champion; None if it was not asked."""
    from visavis.evaluation.intervals import Figure
    from visavis.evaluation.report import Verdict

    if not (folder / DECISION).is_file():
        return None
    decision = read_json(folder / DECISION)
    rules = [(rule["metric"], rule["passed"], rule["reason"]) for rule in decision["rules"]]
    words = read_json(folder / PROMOTION)["words"] if (folder / PROMOTION).is_file() else ""
    rows: dict[str, Any] = {}
    if decision["champion"] and "evaluate_champion" in manifests:
        rows = read_json(manifests["evaluate_champion"].file(DIFFERENCES))
    differences = {path: Figure.from_dict(row) for path, row in rows.items()}
    return Verdict(decision["passed"], rules, words, decision["champion"] or "", differences)


def _report(
    run: RunContext,
    folder: Path,
    notes: Path,
    recipe: Mapping[str, Any],
    timings: dict[str, Any],
    succeeded: bool,
) -> None:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

    from visavis.evaluation.report import summary
    from visavis.evaluation.scorecard import Scorecard
    from visavis.tracking import client_for, dataset_input, flatten

    client, parent = client_for(run.tracking_uri), run.parent_run_id
    params = [Param(name, str(value)[:5_000]) for name, value in flatten(recipe).items()]
    for start in range(0, len(params), 100):
        client.log_batch(parent, params=params[start : start + 100])
    manifests = read_manifests(folder)
    data = [
        dataset_input(use, manifests[step].model_dump()) for step, use in _DATA.items() if step in manifests
    ]
    if data:
        client.log_inputs(parent, datasets=data)
    scorecard = Scorecard.read(folder / SCORECARD) if (folder / SCORECARD).is_file() else None
    said = _tags(run, manifests)
    if scorecard:
        said[MLFLOW_RUN_NOTE] = summary(scorecard, _verdict(folder, manifests))
        if "evaluate_model" in manifests:
            said[MLFLOW_RUN_NOTE] += f"\n\nPictures and `{REPORT}` are among the artifacts."
    client.log_batch(parent, tags=[RunTag(name, value) for name, value in said.items() if value])
    paths = [folder / name for name in _SENT]
    if "evaluate_model" in manifests:
        sheets = (f"{name}.png" for name in SHEETS)
        paths += [manifests["evaluate_model"].file(sheet) for sheet in sheets if sheet != CHAT]
    for path in paths:
        if path.is_file():
            client.log_artifact(parent, str(path))
    figures = {"seconds": timings["seconds"], "peak_rss_mb": timings["peak_rss_mb"]}
    rounds: dict[int, dict[str, float]] = {}
    if scorecard:
        figures |= scorecard.metrics()
        rounds = scorecard.curves()
    now = int(time.time() * 1000)
    if (folder / COST).is_file():
        costs = read_json(folder / COST)
        figures |= costs["run"]
        _note_costs(client, notes, timings, costs["steps"])
    points = [Metric(name, value, now, 0) for name, value in figures.items()]
    points += [Metric(n, value, now, number) for number, row in rounds.items() for n, value in row.items()]
    client.log_batch(parent, metrics=points)
    _note_reused(client, run, notes, timings)
    client.set_terminated(parent, "FINISHED" if succeeded else "FAILED")


def _tags(run: RunContext, manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Returns what people search runs by: the image, the data, the verdict of the gate, the version."""
    tags = {"image.digest": run.image}
    if data := manifests.get("build_conversations"):
        tags["data.manifest"] = data.digest
    if gate := manifests.get("gate_model"):
        tags["gate"] = "passed" if gate.metrics.get("passed") else "failed"
    if promotion := manifests.get("promote_model"):
        tags["promotion"] = next(iter(promotion.counts["dropped"]), "promoted")
    if registered := manifests.get("register_model"):
        tags["model.version"] = f"{registered.metrics['version']:.0f}"
    return tags


def _note_costs(
    client: Any, notes: Path, timings: dict[str, Any], costs: Mapping[str, Mapping[str, float]]
) -> None:
    """Adds what each step took to its MLflow run, which its store remembers."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    for step in timings["steps"]:
        record = notes / step["step"] / f"{step['key']}{RECORD_SUFFIX}"
        if step["step"] in costs and record.is_file():
            metrics = [Metric(name, value, now, 0) for name, value in costs[step["step"]].items()]
            client.log_batch(read_json(record)["run_id"], metrics=metrics)


def _note_reused(client: Any, run: RunContext, notes: Path, timings: dict[str, Any]) -> None:
    """Makes a child run for each reused step, which says in which run the work was done."""
    experiment = client.get_run(run.parent_run_id).info.experiment_id
    for step in timings["steps"]:
        if step["status"] != "reused":
            continue
        record = notes / step["step"] / f"{step['key']}{RECORD_SUFFIX}"
        tags = {"mlflow.parentRunId": run.parent_run_id, "reused": "true", "step.key": step["key"]}
        if record.is_file():
            tags["reused.from"] = read_json(record)["run_id"]
        child = client.create_run(experiment, tags=tags, run_name=f"{step['step']} (reused)")
        client.set_terminated(child.info.run_id)
