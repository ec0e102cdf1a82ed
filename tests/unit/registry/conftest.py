"""A real registry in SQLite, and small versions in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from visavis.registry.versions import Version, register


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("registry")
    from visavis.tracking import client_for, ensure_experiment

    address = f"sqlite:///{folder / 'mlflow.db'}"
    ensure_experiment(client_for(address), "Default", None)
    client_for(address).create_experiment("visavis", artifact_location=str(folder / "artifacts"))
    return address


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


Registered = Callable[..., Version]


@pytest.fixture
def registered(tmp_path: Path, uri: str, name: str) -> Registered:
    """Registers a folder with these bytes as its weights."""

    def make(weights: bytes, gate: str = "passed") -> Version:
        return _registered(tmp_path, uri, name, weights, gate)

    return make


@pytest.fixture
def versions(uri: str, name: str) -> Callable[..., None]:
    """Makes as many versions, without files: numbered from 1, with tags."""

    def make(count: int, model: str = name, **tags: str) -> None:
        from visavis.tracking import client_for

        client = client_for(uri)
        client.create_registered_model(model)
        for _ in range(count):
            client.create_model_version(model, "s3://bucket/model", tags={"gate": "passed", **tags})

    return make


def _folder_with(tmp_path: Path, weights: bytes) -> Path:
    folder = tmp_path / weights.decode()
    (folder / "mllm").mkdir(parents=True, exist_ok=True)
    (folder / "mllm" / "model.safetensors").write_bytes(weights)
    (folder / "recipe.json").write_text("{}")
    return folder


def _registered(tmp_path: Path, uri: str, name: str, weights: bytes, gate: str) -> Version:
    from visavis.tracking import client_for

    client = client_for(uri)
    run = client.create_run(client.get_experiment_by_name("visavis").experiment_id)
    return register(
        _folder_with(tmp_path, weights),
        tracking_uri=uri,
        name=name,
        run_id=run.info.run_id,
        tags={"gate": gate, "git.sha": "abc", "recipe.hash": "r1"},
        metrics={"rounds.right_person_accuracy": 0.8},
        alias="challenger" if gate == "passed" else None,
    )
