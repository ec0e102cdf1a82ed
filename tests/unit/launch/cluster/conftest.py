"""A scripted Kubeflow and Kubernetes on loopback, a real MLflow, and the command line pointed to them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1]))

from kfp_server import KfpServer
from kube_server import KubeServer

IMAGES = {
    kind: f"registry.example.org/visavis-{kind}@sha256:{sign * 64}"
    for kind, sign in (("tools", "a"), ("train", "b"))
}
_VARIABLES = (
    "KF_PIPELINES_ENDPOINT",
    "KF_PIPELINES_UI_ENDPOINT",
    "KF_PIPELINES_SA_TOKEN_PATH",
    "KF_PIPELINES_TOKEN",
    "KF_PIPELINES_COOKIE",
    "KUBEFLOW_NAMESPACE",
    "VISAVIS_STORE",
    "VISAVIS_TOOLS_IMAGE",
    "VISAVIS_TRAIN_IMAGE",
)


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Takes away what the developer has set: no test may reach a real cluster."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real MLflow, in a database."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    from visavis.tracking import client_for

    client_for(uri).search_experiments()
    return uri


@pytest.fixture
def server() -> Iterator[KfpServer]:
    running = KfpServer().start()
    yield running
    running.stop()


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    running = KubeServer(tmp_path / "kubeconfig").start()
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(running.kubeconfig))
    yield running
    running.stop()


@pytest.fixture
def cluster_file(server: KfpServer, mlflow_uri: str, tmp_path: Path) -> Path:
    """`visavis.yaml` of the working folder."""
    file = tmp_path / "visavis.yaml"
    values = {
        "namespace": "team-a",
        "store": "s3://results/faces",
        "kfp": {"endpoint": server.endpoint},
        "mlflow": {"uri": mlflow_uri},
        "images": dict(IMAGES),
    }
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture
def call(cluster_file: Path) -> Callable[..., Any]:
    """Runs the command line in a folder with `visavis.yaml`."""
    from visavis.cli import app

    def run(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(
            app, list(arguments), env={"COLUMNS": "240", "NO_COLOR": "1", "TERM": "dumb"}
        )
        assert result.exit_code == code, (result.output, result.exception)
        assert "Traceback" not in result.output
        if code == 2:
            assert "error:" in result.stderr and "fix:" in result.stderr, result.output
        return result

    return run


@pytest.fixture
def submitted(call: Callable[..., Any], server: KfpServer) -> str:
    """A run that was begun."""
    call("submit", "--recipe", "smoke", "--source", "s3://clips/all")
    (run_id,) = server.runs
    return run_id
