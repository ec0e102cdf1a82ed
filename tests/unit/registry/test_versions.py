"""Versions: registered once, found by alias, loaded only if they are what was registered."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import visavis.loading
from visavis.errors import VisavisError
from visavis.files import write_atomic
from visavis.registry.versions import Version, location, register

Registered = Callable[..., Version]


def test_equal_weights_make_one_version_and_a_refused_one_gets_no_alias(registered: Registered) -> None:
    first = registered(b"one", gate="failed")
    assert first.aliases == () and len(first.tags["weights.sha256"]) == 64
    again = registered(b"one")
    assert (again.version, again.aliases) == ("1", ("challenger",))


def test_a_folder_without_weights_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(VisavisError, match=r"holds no \*\.safetensors"):
        register(tmp_path, tracking_uri=uri)


class FakeChatModel:
    """Stands for the real model, which needs trained weights: knows what its weights file holds."""

    def __init__(self, folder: Path) -> None:
        self.word = (folder / "mllm" / "model.safetensors").read_text()

    from_pretrained = classmethod(lambda cls, folder: cls(folder))


class FakeSession:
    def __init__(self, model: FakeChatModel) -> None:
        self.model, self.said = model, 0

    def say(self, sentence: str) -> SimpleNamespace:
        self.said += 1
        picture = np.zeros((4, 4, 3), np.uint8) if self.said == 2 else None
        return SimpleNamespace(text=f"{self.model.word}: {sentence}", picture=picture)


def test_a_version_loads_by_alias_and_as_pyfunc(
    registered: Registered, uri: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = {"model": {"ChatModel": FakeChatModel}, "session": {"ChatSession": FakeSession}}
    for module, content in fakes.items():
        monkeypatch.setitem(sys.modules, f"visavis.chat.{module}", SimpleNamespace(**content))
    registered(b"one")
    model = visavis.loading.load(f"models:/{name}@challenger", tracking_uri=uri)
    assert model.word == "one"

    import mlflow

    mlflow.set_tracking_uri(uri)
    served = mlflow.pyfunc.load_model(f"models:/{name}@challenger")
    first, second = served.predict([["hello", "show her"]])[0]
    assert first == {"text": "one: hello", "image": ""}
    assert Image.open(io.BytesIO(base64.b64decode(second["image"]))).size == (4, 4)
    assert not (Path.cwd() / "mlruns").exists()


def test_an_address_that_leads_nowhere_is_explained(tmp_path: Path, uri: str, name: str) -> None:
    for address, words in {
        f"models:/{name}@challenger": "does not exist",
        "models:/visavis": "is not a model address",
        str(tmp_path / "nowhere"): "neither a model address nor a folder",
    }.items():
        with pytest.raises(VisavisError, match=words):
            visavis.loading.resolve(address, tracking_uri=uri)
    with pytest.raises(VisavisError, match="there is no MLflow database"):
        visavis.loading.resolve("models:/visavis@champion", tracking_uri=f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_process_that_knows_nothing_of_mlflow_finds_a_version(
    registered: Registered, tmp_path: Path, uri: str, name: str
) -> None:
    registered(b"one")
    code = (
        "import sys; from visavis.loading import resolve;"
        "print(resolve(sys.argv[1], tracking_uri=sys.argv[2]) / 'mllm' / 'model.safetensors')"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, f"models:/{name}@challenger", uri],
        env=environment,
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.splitlines()[-1]).read_bytes() == b"one"
    assert not list(elsewhere.iterdir())


def test_weights_that_were_changed_are_not_loaded(registered: Registered, uri: str, name: str) -> None:
    version = registered(b"one")
    folder = visavis.loading.resolve(version.uri, tracking_uri=uri)
    file = folder / "mllm" / "model.safetensors"
    file.write_bytes(b"two")
    with pytest.raises(VisavisError, match="was registered") as caught:
        visavis.loading.resolve(version.uri, tracking_uri=uri)
    assert version.tags["weights.sha256"][:12] in caught.value.message
    file.write_bytes(b"one")
    assert visavis.loading.resolve(version.uri, tracking_uri=uri) == folder


def test_weights_in_a_bucket_are_brought_once(
    uri: str,
    name: str,
    bucket: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from visavis.tracking import client_for, start_parent

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = start_parent(client_for(uri), name, "run", {}, f"s3://{bucket.name}/artifacts")
    model = tmp_path / "model"
    write_atomic(model / "mllm" / "model.safetensors", b"in a bucket")
    version = register(model, tracking_uri=uri, name=name, run_id=run.info.run_id)
    assert location(version, tracking_uri=uri).startswith(f"s3://{bucket.name}/artifacts")
    folder = visavis.loading.resolve(f"models:/{name}@challenger", tracking_uri=uri)
    assert (folder / "mllm" / "model.safetensors").read_bytes() == b"in a bucket"
    bucket.objects.delete()
    assert visavis.loading.resolve(version.uri, tracking_uri=uri) == folder
