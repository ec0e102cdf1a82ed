"""Tracking: parent and child runs, adopted runs, and a server that is not there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from visavis.files import read_json
from visavis.steps.framework import RunContext, StepJob, StepResult, run_step
from visavis.tracking import Post, Tracker, client_for, flatten, patience, start_parent, step_run
from visavis.tracking.courier import Courier


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("mlflow")
    return f"sqlite:///{folder / 'mlflow.db'}", folder


@pytest.fixture(autouse=True)
def _no_injected_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return


@pytest.fixture
def parent(store: tuple[str, Path], tmp_path: Path) -> tuple[MlflowClient, RunContext]:
    uri, folder = store
    client = client_for(uri)
    run = start_parent(client, "visavis", tmp_path.name, {"recipe": "toy"}, str(folder / "artifacts"))
    context = RunContext(
        store=str(tmp_path / "store"),
        run_dir=str(tmp_path / "run"),
        tracking_uri=uri,
        parent_run_id=run.info.run_id,
        git_sha="abc123",
    )
    return client, context


def test_a_step_is_a_child_run_with_all_that_it_told(parent: tuple[MlflowClient, RunContext]) -> None:
    client, context = parent
    manifest = {"step": "curate", "key": "k1", "uri": "/data", "counts": {"in": 1}, "files": {}}
    with step_run(context, "tune") as tracker:
        tracker.log_params({"stage": {"lr": 1e-3, "sets": {"pair": 1.0}}})
        for step in range(30):
            tracker.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
        tracker.log_image(np.zeros((8, 8, 3), np.uint8), "samples/first.png")
        figure = Figure()
        figure.add_subplot().plot([1, 2])
        tracker.log_figure(figure, "figures/loss.png")
        tracker.log_dataset("training", manifest)
        tracker.set_tags({"step.key": "k2"})
    run = client.get_run(str(tracker.run_id))
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == context.parent_run_id
    assert run.data.tags["git.sha"] == "abc123"
    assert run.data.tags["step.key"] == "k2"
    assert run.data.params == {"stage.lr": "0.001", "stage.sets.pair": "1.0"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(i, 1.0 / (i + 1)) for i in range(30)]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "samples")] == ["samples/first.png"]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "figures")] == ["figures/loss.png"]
    assert run.inputs.dataset_inputs[0].dataset.digest == "k1"
    assert list((Path(context.run_dir) / "tracking").iterdir()) == []


def test_a_failed_block_is_a_failed_run(parent: tuple[MlflowClient, RunContext]) -> None:
    client, context = parent
    with pytest.raises(RuntimeError), step_run(context, "tune") as tracker:
        raise RuntimeError("no face")
    run = client.get_run(str(tracker.run_id))
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "RuntimeError: no face")


def test_a_call_that_mlflow_refuses_does_not_hold_up_the_others(
    parent: tuple[MlflowClient, RunContext],
) -> None:
    client, context = parent
    with step_run(context, "tune") as tracker:
        tracker.log_params({"lr": 1})
        tracker.log_params({"lr": 2})  # MLflow's parameters cannot be changed
        tracker.log_metrics({"loss (mean)": 0.5})
    run = client.get_run(str(tracker.run_id))
    assert run.data.params == {"lr": "1"}
    assert run.data.metrics == {"loss _mean_": 0.5}


def test_an_injected_run_is_adopted_and_left_open(
    parent: tuple[MlflowClient, RunContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, context = parent
    injected = client.create_run(client.get_experiment_by_name("visavis").experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", context.tracking_uri)
    elsewhere = context.model_copy(update={"tracking_uri": "http://127.0.0.1:9"})
    with step_run(elsewhere, "tune") as tracker:
        tracker.log_metrics({"loss": 1.0})
    run = client.get_run(injected)
    assert tracker.run_id == injected
    assert (run.info.status, run.data.metrics) == ("RUNNING", {"loss": 1.0})


def test_a_resumed_step_marks_its_killed_attempt(
    parent: tuple[MlflowClient, RunContext], tmp_path: Path
) -> None:
    client, context = parent
    record = tmp_path / "k.run.json"
    killed = client.create_run(client.get_experiment_by_name("visavis").experiment_id).info.run_id
    record.write_text(f'{{"run_id": "{killed}"}}')
    with step_run(context, "tune", record=record) as tracker:
        pass
    assert client.get_run(killed).info.status == "KILLED"
    assert client.get_run(str(tracker.run_id)).data.tags["resumed.from"] == killed
    assert read_json(record) == {"run_id": tracker.run_id}


def test_without_an_address_nothing_is_tracked(tmp_path: Path) -> None:
    context = RunContext(store=str(tmp_path), run_dir=str(tmp_path / "run"))
    with step_run(context, "tune") as tracker:
        tracker.log_metrics({"loss": 1.0})
        tracker.log_text("words", "a.txt")
    assert tracker.run_id is None
    assert not (tmp_path / "run").exists()


def _train(job: StepJob) -> StepResult:
    for step in range(5):
        job.tracker.log_metrics({"loss": float(step)}, step=step)
    job.tracker.log_text("a curve", "notes/curve.txt")
    (job.work / "weights.bin").write_bytes(b"w")
    return StepResult({"in": 1, "kept": 1, "dropped": {}}, {"loss": 4.0})


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections and never answers, which is worse than a closed port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield server.getsockname()[1]


@pytest.mark.parametrize("silent", [False, True], ids=["closed port", "silent port"])
def test_a_dead_server_does_not_stop_a_step(
    tmp_path: Path, silent: bool, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    uri = f"http://127.0.0.1:{silent_port if silent else 9}"
    context = RunContext(store=str(tmp_path / "store"), run_dir=str(tmp_path / "run"), tracking_uri=uri)
    started = time.monotonic()
    manifest = run_step("tune", _train, "{}", context.model_dump_json(), {}, tmp_path / "out.json", ())
    assert time.monotonic() - started < 30
    assert (manifest.folder / "weights.bin").is_file()
    calls = next((tmp_path / "run" / "tracking").glob("tune.*.jsonl"))
    kept = [json.loads(line) for line in calls.read_text().splitlines()]
    metrics = [value["values"] for kind, value in kept if kind == "metrics"]
    losses = [values["loss"] for values in metrics if "seconds" not in values]
    assert losses == [0.0, 1.0, 2.0, 3.0, 4.0]
    files = [calls.parent / value["file"] for kind, value in kept if kind == "file"]
    assert (files[0].name, files[0].read_text()) == ("curve.txt", "a curve")


@pytest.mark.parametrize(("given", "inside"), [("5", 1800), ("40", 40)])
def test_weights_get_more_time_than_metrics_unless_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch, given: str, inside: int
) -> None:
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT as LIMIT

    monkeypatch.setenv(LIMIT.name, given)
    with patience():
        assert LIMIT.get() == inside
    assert LIMIT.get() == int(given)


def test_flatten_joins_names_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_a_launcher_sends_the_calls_of_its_steps(parent: tuple[MlflowClient, RunContext]) -> None:
    client, context = parent
    relayed = context.model_copy(update={"relayed": True})
    post = Post(relayed, Path(context.run_dir) / "tracking").start()
    with step_run(relayed, "first") as tracker:
        tracker.log_metrics({"loss": 1.0}, step=1)
        tracker.log_text("words", "notes/a.txt")
    dead = Tracker(relayed, "second")
    dead.log_metrics({"loss": 2.0}, step=1)  # and then its process is killed
    assert post.close()
    runs = client.search_runs(
        [client.get_experiment_by_name("visavis").experiment_id],
        f"tags.mlflow.parentRunId = '{context.parent_run_id}'",
    )
    assert {run.info.run_name: run.info.status for run in runs} == {"first": "FINISHED", "second": "KILLED"}
    assert {run.info.run_name: run.data.metrics["loss"] for run in runs} == {"first": 1.0, "second": 2.0}
    first = next(run for run in runs if run.info.run_name == "first")
    assert [file.path for file in client.list_artifacts(first.info.run_id, "notes")] == ["notes/a.txt"]


def test_a_step_without_a_sender_does_not_import_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys; from visavis.steps.framework import RunContext; from visavis.tracking import step_run\n"
        f"context = RunContext(store='', run_dir={str(tmp_path)!r}, tracking_uri='sqlite://', relayed=True)\n"
        "with step_run(context, 'tune') as tracker: tracker.log_metrics({'loss': 1.0})\n"
        "sys.exit('mlflow' in sys.modules or 'pandas' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_a_courier_goes_on_where_a_killed_one_was(parent: tuple[MlflowClient, RunContext]) -> None:
    client, context = parent
    folder = Path(context.run_dir) / "tracking"
    relayed = context.model_copy(update={"relayed": True})
    tracker = Tracker(relayed, "tune")
    tracker.log_metrics({"loss": 1.0}, step=1)
    file = next(folder.glob("*.jsonl"))
    killed = Courier(context, file)
    killed.pump()
    tracker.log_metrics({"loss": 2.0}, step=2)
    tracker.close()
    later = Courier(context, file)
    later.pump()
    assert later.run_id == killed.run_id and later.ended
    history = client.get_metric_history(str(later.run_id), "loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 2.0)]
    assert list(folder.iterdir()) == []
