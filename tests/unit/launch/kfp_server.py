"""What stands for Kubeflow Pipelines: a scripted server of its published API, in memory, on loopback.

It speaks v2beta1 as `kfp_server_api`, which is generated from the published OpenAPI, reads and writes it: a request
with a field that its model does not know is refused, as Kubeflow does, and an answer that its model does not read back
whole fails the test. What it does with a run is told by the test; how it refuses follows `backend/src/apiserver` of
2.17.0.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kfp_server_api import ApiClient

BEGINNING = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
_NO_TIME = "1970-01-01T00:00:00Z"
_PREFIX = "/apis/v2beta1"
_MICRO = re.compile(r"(\.\d+)?(Z|\+00:00)$")


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Fault:
    part: str
    status: int
    body: bytes


@dataclass
class KfpServer:
    """Kubeflow Pipelines with some namespaces, each open to whoever has the token (if one is set)."""

    namespaces: tuple[str, ...] = ("team-a", "team-b")
    token: str = ""
    multi_user: bool = True
    tag: str = "2.17.0"
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    on_get: Callable[[dict[str, Any]], None] = lambda run: None
    now: datetime = BEGINNING
    broken: list[str] = field(default_factory=list)
    _scheme: str = "http"

    def start(self) -> KfpServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                status, kind, body = server._answer(self, self.rfile.read(length))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        assert not self.broken, self.broken

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def behind_tls(self, folder: Path) -> Path:
        """Answers by TLS from now on, with a certificate that nobody has signed; returns it."""
        file, key = self_signed(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "https"
        return file

    def fail(self, part: str, status: int, body: bytes = b"", times: int = 1) -> None:
        """Breaks the next answers to requests whose method and path hold `part`."""
        self.faults += [Fault(part, status, body)] * times

    def play(self, run_id: str, state: str, tasks: dict[str, Any] | None = None) -> None:
        """Puts a run into a state; `tasks` is task -> state, or a list of states, one for each round of a loop."""
        run = self.runs[run_id]
        run["state"] = state
        if state in ("SUCCEEDED", "FAILED", "CANCELED"):
            run["finished_at"] = stamp(self.now + timedelta(minutes=30))
        details = [self._node(run_id, "root", state), self._node(run_id, "root-driver", "SUCCEEDED")]
        for key, states in (tasks or {}).items():
            for one in [states] if isinstance(states, str) else states:
                details += [
                    self._node(run_id, f"{key}-driver", "SUCCEEDED"),
                    self._node(run_id, key, one),
                    self._node(run_id, "executor", one),
                ]
        run["run_details"] = {"task_details": details}

    def told(self, run_id: str) -> dict[str, Any]:
        """Returns the context that the pods of a run are given: Kubeflow puts the run's id in (`ReplaceUID`)."""
        text = self.runs[run_id]["runtime_config"]["parameters"]["context"]
        return dict(json.loads(text.replace("{{workflow.uid}}", run_id)))

    def _node(self, run_id: str, name: str, state: str) -> dict[str, Any]:
        over = state in ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
        return {
            "run_id": run_id,
            "task_id": str(uuid.uuid4()),
            "display_name": name,
            "create_time": stamp(self.now),
            "start_time": stamp(self.now + timedelta(minutes=1)),
            "end_time": stamp(self.now + timedelta(minutes=3)) if over else _NO_TIME,
            "state": state,
        }

    def _answer(self, request: BaseHTTPRequestHandler, data: bytes) -> tuple[int, str, bytes]:
        line = f"{request.command} {request.path}"
        self.requests.append(line)
        self.headers.append(dict(request.headers.items()))
        self.bodies.append(data.decode(errors="replace"))
        for fault in self.faults:
            if fault.part in line:
                self.faults.remove(fault)
                kind = "text/html" if fault.body.startswith(b"<") else "application/json"
                return fault.status, kind, fault.body
        try:
            if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
                raise Refusal(401, "Request header error: there is no user identity header")
            answer = self._do(request, data)
        except Refusal as refusal:
            answer = {"code": 3, "message": str(refusal), "error": str(refusal), "details": []}
            return refusal.status, "application/json", json.dumps(answer).encode()
        except Exception as error:  # so that the test fails, and not only its request
            self.broken.append(f"{line}: {error!r}")
            raise
        return 200, "application/json", json.dumps(answer).encode()

    def _do(self, request: BaseHTTPRequestHandler, data: bytes) -> dict[str, Any]:
        url = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        path = unquote(url.path.removeprefix(_PREFIX))
        for method, pattern, act in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method == request.command:
                return dict(act(self, query, _body(request, data), *found.groups()))
        raise Refusal(404, "Not Found")

    def _allowed(self, namespace: str) -> None:
        if namespace not in self.namespaces:
            message = f"User 'tester@example.org' is not authorized with reason:  (namespace: {namespace!r})"
            raise Refusal(403, message)


def _body(request: BaseHTTPRequestHandler, data: bytes) -> Any:
    kind = request.headers.get("Content-Type") or ""
    if not kind.startswith("multipart/"):
        return json.loads(data) if data else {}
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + data)
    (part,) = message.get_payload()
    return list(yaml.safe_load_all(part.get_payload(decode=True)))


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Makes a certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    place = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, today, today + timedelta(days=1))
    signed = made.add_extension(place, critical=False).sign(key, hashes.SHA256())
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*plain))
    return certificate, private


def read(model: str, body: dict[str, Any]) -> dict[str, Any]:
    """Returns a request body, refused if its model does not know all of it."""
    if through(model, body) != _plain(body):
        raise Refusal(400, f"proto: unknown field of {model}")
    return body


def told(model: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Returns an answer; the test fails if its model does not read it back whole."""
    assert through(model, answer) == _plain(answer), (model, answer)
    return answer


def through(model: str, body: dict[str, Any]) -> Any:
    api = ApiClient()
    typed = api.deserialize(SimpleNamespace(data=json.dumps(body)), model)
    return _plain(api.sanitize_for_serialization(typed))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return (
        _MICRO.sub("Z", value) if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value) else value
    )


def _page(query: dict[str, str], items: list[dict[str, Any]], name: str, model: str) -> dict[str, Any]:
    start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 10)
    page: dict[str, Any] = {name: items[start : start + size], "total_size": len(items)}
    if start + size < len(items):
        page["next_page_token"] = str(start + size)
    return told(model, page)


def _health(server: KfpServer, *_: Any) -> dict[str, Any]:
    told("V2beta1GetHealthzResponse", {"multi_user": server.multi_user, "pipeline_store": "database"})
    # The server says more than the OpenAPI knows (`apiserver/main.go`).
    return {"commit_sha": "abc", "tag_name": server.tag, "multi_user": server.multi_user}


def _list_experiments(server: KfpServer, query: dict[str, str], _: Any) -> dict[str, Any]:
    server._allowed(query["namespace"])
    items = [one for one in server.experiments.values() if one["namespace"] == query["namespace"]]
    return _page(query, items, "experiments", "V2beta1ListExperimentsResponse")


def _create_experiment(server: KfpServer, _: Any, body: dict[str, Any]) -> dict[str, Any]:
    server._allowed(body["namespace"])
    made = {**read("V2beta1Experiment", body), "experiment_id": str(uuid.uuid4())}
    server.experiments[made["experiment_id"]] = made
    return told("V2beta1Experiment", made)


def _get_experiment(server: KfpServer, _: Any, __: Any, identity: str) -> dict[str, Any]:
    return told("V2beta1Experiment", _held(server.experiments, identity, "Experiment"))


def _list_pipelines(server: KfpServer, query: dict[str, str], _: Any) -> dict[str, Any]:
    server._allowed(query["namespace"])
    items = [one for one in server.pipelines.values() if one["namespace"] == query["namespace"]]
    return _page(query, items, "pipelines", "V2beta1ListPipelinesResponse")


def _create_pipeline(server: KfpServer, _: Any, body: dict[str, Any]) -> dict[str, Any]:
    server._allowed(body["namespace"])
    if body["name"] in [
        one["name"] for one in server.pipelines.values() if one["namespace"] == body["namespace"]
    ]:
        raise Refusal(409, f"The name {body['name']} already exist. Please specify a new name")
    made = {**read("V2beta1Pipeline", body), "pipeline_id": str(uuid.uuid4())}
    server.pipelines[made["pipeline_id"]] = made
    return told("V2beta1Pipeline", made)


def _get_pipeline(server: KfpServer, _: Any, __: Any, identity: str) -> dict[str, Any]:
    return told("V2beta1Pipeline", _held(server.pipelines, identity, "Pipeline"))


def _list_versions(server: KfpServer, query: dict[str, str], _: Any, pipeline: str) -> dict[str, Any]:
    items = [one for one in server.versions.values() if one["pipeline_id"] == pipeline]
    return _page(query, items, "pipeline_versions", "V2beta1ListPipelineVersionsResponse")


def _get_version(server: KfpServer, _: Any, __: Any, ___: str, version: str) -> dict[str, Any]:
    return told("V2beta1PipelineVersion", _held(server.versions, version, "PipelineVersion"))


def _upload_version(server: KfpServer, query: dict[str, str], documents: list[Any]) -> dict[str, Any]:
    pipeline = _held(server.pipelines, query["pipelineid"], "Pipeline")
    mates = [one for one in server.versions.values() if one["pipeline_id"] == pipeline["pipeline_id"]]
    if query["name"] in [one["name"] for one in mates]:
        raise Refusal(409, "Failed to create a pipeline version")
    spec, *platform = documents
    made = {
        "pipeline_id": pipeline["pipeline_id"],
        "pipeline_version_id": str(uuid.uuid4()),
        "name": query["name"],
        "display_name": query["name"],
        "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec,
    }
    server.versions[made["pipeline_version_id"]] = made
    return told("V2beta1PipelineVersion", made)


def _create_run(server: KfpServer, _: Any, body: dict[str, Any]) -> dict[str, Any]:
    read("V2beta1Run", body)
    experiment = _held(server.experiments, body["experiment_id"], "Experiment")
    server._allowed(experiment["namespace"])
    _check_inputs(server, body)
    server.now += timedelta(minutes=1)
    run = {
        **body,
        "run_id": str(uuid.uuid4()),
        "created_at": stamp(server.now),
        "scheduled_at": _NO_TIME,
        "finished_at": _NO_TIME,
        "state": "PENDING",
    }
    server.runs[run["run_id"]] = run
    return told("V2beta1Run", run)


def _check_inputs(server: KfpServer, body: dict[str, Any]) -> None:
    reference = body["pipeline_version_reference"]
    spec = _held(server.versions, reference["pipeline_version_id"], "PipelineVersion")["pipeline_spec"]
    wanted = set(spec.get("pipeline_spec", spec)["root"]["inputDefinitions"]["parameters"])
    given = set(body["runtime_config"]["parameters"])
    if wanted != given:
        raise Refusal(400, f"parameters {sorted(wanted ^ given)} are missing or unknown")


def _list_runs(server: KfpServer, query: dict[str, str], _: Any) -> dict[str, Any]:
    server._allowed(_held(server.experiments, query["experiment_id"], "Experiment")["namespace"])
    items = [one for one in server.runs.values() if one["experiment_id"] == query["experiment_id"]]
    items.sort(key=lambda one: one["created_at"], reverse=query["sort_by"].endswith("desc"))
    return _page(query, items, "runs", "V2beta1ListRunsResponse")


def _get_run(server: KfpServer, _: Any, __: Any, identity: str) -> dict[str, Any]:
    run = _held(server.runs, identity, "Run")
    server._allowed(server.experiments[run["experiment_id"]]["namespace"])
    server.on_get(run)
    return told("V2beta1Run", run)


def _retry_run(server: KfpServer, _: Any, __: Any, identity: str) -> dict[str, Any]:
    run = _held(server.runs, identity, "Run")
    if run["state"] != "FAILED":
        raise Refusal(400, f"Failed to retry run {identity}: Workflow must be Failed/Error to retry")
    run["state"], run["finished_at"] = "RUNNING", _NO_TIME
    return {}


def _terminate_run(server: KfpServer, _: Any, __: Any, identity: str) -> dict[str, Any]:
    run = _held(server.runs, identity, "Run")
    if run["state"] not in ("PAUSED", "PENDING", "RUNNING"):
        raise Refusal(400, f"Failed to terminate a run {identity}. Row not found")
    run["state"] = "CANCELING"
    return {}


def _create_schedule(server: KfpServer, _: Any, body: dict[str, Any]) -> dict[str, Any]:
    read("V2beta1RecurringRun", body)
    server._allowed(_held(server.experiments, body["experiment_id"], "Experiment")["namespace"])
    _check_inputs(server, body)
    cron = body["trigger"]["cron_schedule"]["cron"]
    if not cron.startswith("@") and len(cron.split()) not in (5, 6):
        raise Refusal(
            400, "Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron)"
        )
    identity = str(uuid.uuid4())
    made = {
        **body,
        "recurring_run_id": identity,
        "created_at": stamp(server.now),
        "status": "ENABLED" if body["mode"] == "ENABLE" else "DISABLED",
    }
    server.schedules[identity] = made
    return told("V2beta1RecurringRun", made)


def _list_schedules(server: KfpServer, query: dict[str, str], _: Any) -> dict[str, Any]:
    items = [one for one in server.schedules.values() if one["experiment_id"] == query["experiment_id"]]
    return _page(query, items, "recurringRuns", "V2beta1ListRecurringRunsResponse")


def _switch_schedule(server: KfpServer, _: Any, __: Any, identity: str, switch: str) -> dict[str, Any]:
    found = _held(server.schedules, identity, "RecurringRun")
    found["mode"] = switch.upper()
    found["status"] = f"{switch.upper()}D"
    return {}


def _delete_schedule(server: KfpServer, _: Any, __: Any, identity: str) -> dict[str, Any]:
    _held(server.schedules, identity, "RecurringRun")
    del server.schedules[identity]
    return {}


def _held(things: dict[str, dict[str, Any]], identity: str, kind: str) -> dict[str, Any]:
    if identity not in things:
        raise Refusal(404, f"{kind} {identity} not found")
    return things[identity]


_ROUTES: tuple[tuple[str, str, Callable[..., dict[str, Any]]], ...] = (
    ("GET", "/healthz", _health),
    ("GET", "/experiments", _list_experiments),
    ("POST", "/experiments", _create_experiment),
    ("GET", "/experiments/([^/:]+)", _get_experiment),
    ("GET", "/pipelines", _list_pipelines),
    ("POST", "/pipelines", _create_pipeline),
    ("POST", "/pipelines/upload_version", _upload_version),
    ("GET", "/pipelines/([^/:]+)", _get_pipeline),
    ("GET", "/pipelines/([^/:]+)/versions", _list_versions),
    ("GET", "/pipelines/([^/:]+)/versions/([^/:]+)", _get_version),
    ("GET", "/runs", _list_runs),
    ("POST", "/runs", _create_run),
    ("GET", "/runs/([^/:]+)", _get_run),
    ("POST", "/runs/([^/:]+):retry", _retry_run),
    ("POST", "/runs/([^/:]+):terminate", _terminate_run),
    ("GET", "/recurringruns", _list_schedules),
    ("POST", "/recurringruns", _create_schedule),
    ("POST", "/recurringruns/([^/:]+):(enable|disable)", _switch_schedule),
    ("DELETE", "/recurringruns/([^/:]+)", _delete_schedule),
)
