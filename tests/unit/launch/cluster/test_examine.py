"""The doctor of a cluster: every finding says what to do, and what cannot be looked at is a finding too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from kfp_server import KfpServer
from kube_server import KubeServer, definition

from visavis.launch.cluster.examine import examine_cluster
from visavis.launch.cluster.target import read_target
from visavis.launch.finding import Finding


class Mlflow:
    """What stands for MLflow's server: it tells its version."""

    def __init__(self) -> None:
        self.status, self.text = 200, "3.17.2"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer.text.encode()
                self.send_response(outer.status if self.path == "/version" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.uri = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def mlflow() -> Iterator[Mlflow]:
    running = Mlflow()
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def look(cluster_file: Path, mlflow: Mlflow) -> Callable[[], dict[str, Finding]]:
    values = yaml.safe_load(cluster_file.read_text())
    values["mlflow"]["uri"] = mlflow.uri
    cluster_file.write_text(yaml.safe_dump(values))

    def run() -> dict[str, Finding]:
        found = {finding.subject: finding for finding in examine_cluster(read_target())}
        for finding in found.values():
            assert (finding.verdict == "ok") == (not finding.fix), finding
        return found

    return run


@pytest.fixture
def whole(kube: KubeServer) -> KubeServer:
    """A cluster with all that this release needs."""
    for name, version, fields in (
        ("trainjobs.trainer.kubeflow.org", "v1alpha1", ("runtimePatches",)),
        ("inferenceservices.serving.kserve.io", "v1beta1", ("predictor", "canary")),
        ("localqueues.kueue.x-k8s.io", "v1beta1", ()),
    ):
        kube.definitions[name] = definition(name, version, *fields)
    kube.config_maps["pipeline-install-config"] = {"cronScheduleTimezone": "UTC"}
    return kube


def test_a_whole_cluster_is_well(look: Callable[[], dict[str, Finding]], whole: KubeServer) -> None:
    found = look()
    assert {finding.verdict for finding in found.values()} == {"ok"}, found
    for subject in (
        "kfp",
        "KFP API server",
        "MLflow",
        "Kubernetes",
        "Trainer",
        "KServe",
        "Kueue",
        "schedules' zone",
    ):
        assert subject in found
    assert "2.17.0, multi-user" in found["KFP API server"].found


def test_what_is_too_old_or_absent(
    look: Callable[[], dict[str, Finding]], whole: KubeServer, server: KfpServer, mlflow: Mlflow
) -> None:
    server.tag, mlflow.text, whole.version = "2.13.0", "3.4.0", "v1.27.9"
    del whole.definitions["localqueues.kueue.x-k8s.io"]
    old = {
        "trainjobs.trainer.kubeflow.org": ("v1alpha1", "podTemplateOverrides"),
        "inferenceservices.serving.kserve.io": ("v1beta1", "predictor"),
    }
    for name, parts in old.items():
        whole.definitions[name] = definition(name, *parts)
    whole.config_maps["pipeline-install-config"] = {"cronScheduleTimezone": "Asia/Tokyo"}
    whole.allowed = False
    found = look()
    verdicts = {subject: finding.verdict for subject, finding in found.items()}
    for subject in ("KFP API server", "MLflow", "Kubernetes", "Trainer", "KServe canary", "schedules' zone"):
        assert verdicts[subject] == "missing", subject
    assert verdicts["Kueue"] == verdicts["logs"] == "warning" and verdicts["KServe"] == "ok"
    assert "runtimePatches" in found["Trainer"].found
    assert "kfp.time_zone to Asia/Tokyo" in found["schedules' zone"].fix


@pytest.mark.parametrize(
    ("tag", "verdict"),
    [("2.16.1", "warning"), ("2.18.0", "ok"), ("unknown", "warning"), ("2.9.0", "missing")],
)
def test_versions_of_the_api_server(
    look: Callable[[], dict[str, Finding]], whole: KubeServer, server: KfpServer, tag: str, verdict: str
) -> None:
    server.tag = tag
    assert look()["KFP API server"].verdict == verdict


def test_what_cannot_be_looked_at_is_said(
    look: Callable[[], dict[str, Finding]], whole: KubeServer, server: KfpServer, mlflow: Mlflow
) -> None:
    whole.refused, mlflow.status = "apis/apiextensions", 401
    server.fail("/healthz", 401)
    found = look()
    assert "not readable" in found["Trainer"].found and found["Trainer"].verdict == "warning"
    assert found["MLflow"].verdict == "missing" and "MLFLOW_TRACKING_TOKEN" in found["MLflow"].fix
    assert found["Kubeflow Pipelines"].verdict == "missing" and "401" in found["Kubeflow Pipelines"].found


def test_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {finding.subject: finding for finding in examine_cluster(read_target())}
    for subject in ("Kubeflow Pipelines", "MLflow", "Kubernetes", "store", "image tools"):
        assert found[subject].verdict == "missing" and found[subject].fix, subject


def test_the_verb_exits_with_1_if_something_is_missing(
    call: Callable[..., Any], look: Callable[[], dict[str, Finding]], whole: KubeServer, server: KfpServer
) -> None:
    assert "missing" not in call("doctor", "--cluster").stdout
    server.tag = "2.9.0"
    said = call("doctor", "--cluster", code=1).stdout
    assert "fix: upgrade Kubeflow Pipelines" in said
