"""The end of a run on a cluster: jobs deleted, costs in MLflow, a webhook told; nothing of it fails the run."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from trainer_server import Frame, TrainerServer

from visavis.cluster import Cluster, Profile, Training
from visavis.cluster.cost import note_attempt
from visavis.files import read_json, write_json
from visavis.launch.closing import close_run
from visavis.launch.trainer_api import RUN_LABEL
from visavis.launch.trainjob import run_label
from visavis.recipes import Recipe
from visavis.steps.contracts import RunContext
from visavis.tracking import client_for, start_parent

RECIPE = Recipe(name="toy", pack="storybook").model_dump_json()
PROFILES = {
    "small": Profile(usd_per_hour=0.1),
    "train": Profile(accelerator="nvidia.com/gpu", accelerators=8, nodes=2, usd_per_hour=24),
}


@pytest.fixture
def told() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    taken: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", taken
    server.shutdown()
    server.server_close()


def timing(folder: Path, step: str, status: str, seconds: float) -> None:
    row = {
        "step": step,
        "key": "k",
        "status": status,
        "started": step,
        "seconds": seconds,
        "peak_rss_mb": 1.0,
    }
    write_json(folder / "timings" / f"{step}.json", row)


def test_costs_are_those_of_pods_that_held_their_nodes(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = client_for(uri)
    parent = start_parent(client, "visavis", "toy", {}, (tmp_path / "artifacts").as_uri())
    experiment = parent.info.experiment_id
    child = client.create_run(experiment).info.run_id
    cluster = Cluster(profiles=PROFILES, default="small", steps={"tune_mllm": "train"})
    run = RunContext(
        store=str(tmp_path / "store"),
        run_dir=str(tmp_path / "run"),
        tracking_uri=uri,
        parent_run_id=parent.info.run_id,
        cluster=cluster,
    )
    folder = Path(run.run_dir)
    timing(folder, "gate_model", "ran", 360.0)
    timing(folder, "list_clips", "reused", 0.1)
    timing(folder, "tune_mllm_pair", "ran", 3000.0)
    for outcome, seconds in (("Evicted", 1800.0), ("JobsComplete", 3600.0)):
        attempt = {"job": "j", "outcome": outcome, "seconds": seconds, "nodes": 2}
        note_attempt(folder, "tune_mllm_pair", attempt)
    write_json(tmp_path / "store" / "tune_mllm_pair" / "k.run.json", {"run_id": child})
    close_run(RECIPE, run.model_dump_json(), True)
    assert read_json(folder / "cost.json") == {
        "run": {"cost.gpu_hours": 24.0, "cost.usd": 72.01},
        "steps": {
            "gate_model": {"cost.gpu_hours": 0.0, "cost.usd": 0.01},
            "tune_mllm_pair": {"cost.gpu_hours": 24.0, "cost.usd": 72.0},
        },
    }
    metrics = client.get_run(parent.info.run_id).data.metrics
    assert (metrics["cost.gpu_hours"], metrics["cost.usd"]) == (24.0, 72.01)
    assert client.get_run(child).data.metrics["cost.usd"] == 72.0
    assert "cost.json" in {file.path for file in client.list_artifacts(parent.info.run_id)}


def test_on_a_machine_of_its_own_nothing_has_a_price(tmp_path: Path) -> None:
    run = RunContext(store=str(tmp_path / "store"), run_dir=str(tmp_path / "run"))
    timing(tmp_path / "run", "gate_model", "ran", 360.0)
    close_run(RECIPE, run.model_dump_json(), True)
    assert not (tmp_path / "run" / "cost.json").exists()


def test_jobs_that_are_left_are_deleted_and_somebody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: tuple[str, list[dict[str, Any]]]
) -> None:
    url, taken = told
    server = TrainerServer(scripts=[[Frame()], [Frame()]])
    config = server.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the client keeps credentials there
    cluster = Cluster(
        training=Training(run_as="trainjob"), webhook=url, run_link="https://kubeflow/#/runs/details/{run}"
    )
    run = RunContext(
        store=str(tmp_path / "store"), run_dir=str(tmp_path / "run"), run_name="r", cluster=cluster
    )
    for name, label in (("mine", run_label(run)), ("other", "another")):
        server.put({"metadata": {"name": name, "labels": {RUN_LABEL: label}}, "spec": {}})
    failure = {"step": "gate_model", "message": "no scorecard", "fix": "score first", "traceback": "secret"}
    write_json(tmp_path / "run" / "failures" / "gate_model.json", failure)
    try:
        close_run(RECIPE, run.model_dump_json(), False, "4711")
    finally:
        server.stop()
    assert list(server.jobs) == ["other"]
    (event,) = taken
    assert event["event"] == "visavis.run"
    content = event["content"]
    assert content["failures"] == [{"step": "gate_model", "message": "no scorecard", "fix": "score first"}]
    assert content["links"] == {"pipeline": "https://kubeflow/#/runs/details/4711"}
    assert (content["succeeded"], content["run_id"]) == (False, "4711")


def test_a_cluster_and_a_listener_that_do_not_answer_are_only_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = str(tmp_path / "nothing")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", nothing)
    monkeypatch.setattr("visavis.tracking.webhook._TRIES", 0)
    cluster = Cluster(training=Training(run_as="trainjob"), webhook="http://127.0.0.1:9/")
    run = RunContext(store=str(tmp_path / "store"), run_dir=str(tmp_path / "run"), cluster=cluster)
    close_run(RECIPE, run.model_dump_json(), True)
    assert read_json(tmp_path / "run" / "status.json")["status"] == "succeeded"
    assert "could not be deleted" in caplog.text and "did not take visavis.run" in caplog.text
