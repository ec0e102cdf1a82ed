"""Builds the images once for the tests of this folder, which `make e2e-docker` runs and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import docker

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests" / "unit"), str(ROOT / "tests" / "e2e")]
BASE = os.environ.get("BASE_IMAGE", "")
FIX = "apt-get install docker.io and start it, or on Debian: sudo tools/docker_here.sh"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(3600))
            item.add_marker(pytest.mark.skipif(not BASE, reason="`make e2e-docker` runs it"))


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The Docker engine."""
    import docker

    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        pytest.fail(f"Docker does not answer ({error}). Fix: {FIX}", pytrace=False)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _how_a_container_ended_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mends Kubeflow's runner: it lets Docker remove a container before it asks how that ended.

    One that is gone by then counts as a success there (kubeflow/pipelines#13332, in kfp 2.17).
    """
    monkeypatch.setattr("kfp.local.docker_task_handler.run_docker_container", _ran)


def _ran(
    client: docker.DockerClient, image: str, command: list[str], volumes: dict[str, Any], **more: Any
) -> int:
    container = client.containers.run(image, command, detach=True, volumes=volumes, **more)
    try:
        for line in container.logs(stream=True):
            print(line.decode(errors="replace"), end="")
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Names of the three images, built from this checkout, as `make images` prints them."""
    import yaml

    command = [sys.executable, str(ROOT / "tools" / "images.py"), "--base", BASE, "--tag", "e2e"]
    command += ["--engine", os.environ.get("ENGINE", "docker"), "--torch", os.environ.get("TORCH", "")]
    # What the build says goes to stderr, which pytest shows if it fails, and at once with `-s`.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, "the images could not be built; see the lines above"
    names = dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith("VISAVIS_"))
    # Components and pipelines read these when they are first imported. A step is tried again, but soon.
    cluster = yaml.safe_load((ROOT / "pipelines" / "cluster.yaml").read_text())
    file = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
    file.write_text(yaml.safe_dump({**cluster, "retries": {"count": 1, "backoff_seconds": 1}}))
    os.environ.update(names, VISAVIS_CLUSTER=str(file))
    return {key.removeprefix("VISAVIS_").removesuffix("_IMAGE").lower(): name for key, name in names.items()}
