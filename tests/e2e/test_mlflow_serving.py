"""`mlflow models serve`, really started on a registered version: chats in, words and pictures out."""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image
from serving import free_port, process

from visavis.chat.weights import weights_digest
from visavis.loading import resolve
from visavis.registry.versions import register

WORDS = "Generate an image: two friends, Julian with red hair and Olivia in a hat, at sunset"


def test_a_version_is_served_by_mlflow(model_folder: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    version = register(model_folder, tracking_uri=uri)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", version.uri]
    command += ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    # It starts `uvicorn` by name, as in a shell in which the environment is activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    paths = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri, "PATH": path}
    with process(command, f"{url}/ping", tmp_path / "log", **paths):
        chats = [[WORDS, "Generate a close-up photo of Olivia"]]
        answer = httpx.post(f"{url}/invocations", json={"inputs": chats}, timeout=120)
        assert answer.status_code == 200, answer.text
        first, second = answer.json()["predictions"][0]
        assert first["text"] and second["text"]
        with Image.open(io.BytesIO(base64.b64decode(first["image"]))) as image:
            assert image.size == (64, 64)
        assert httpx.post(f"{url}/invocations", json={"wrong": 1}, timeout=60).status_code == 400


def test_a_version_on_a_server_is_downloaded_once(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--workers", "1"]
    command += ["--artifacts-destination", (tmp_path / "artifacts").as_uri()]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with process(command, f"{url}/health", tmp_path / "log", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"):
        version = register(model_folder, tracking_uri=url)
        folder = resolve("models:/visavis@challenger", tracking_uri=url)
        assert weights_digest(folder) == version.tags["weights.sha256"]
        assert folder.is_relative_to(tmp_path / "cache")
        assert resolve(version.uri, tracking_uri=url) == folder
