"""Builds the images once for the tests of this folder, which `make e2e-docker` runs and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

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


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient) -> Mapping[str, str]:
    """Names of the three images, built from this checkout, as `make images` prints them."""
    command = [sys.executable, str(ROOT / "tools" / "images.py"), "--base", BASE, "--tag", "e2e"]
    command += ["--engine", os.environ.get("ENGINE", "docker"), "--torch", os.environ.get("TORCH", "")]
    # What the build says goes to stderr, which pytest shows if it fails, and at once with `-s`.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, "the images could not be built; see the lines above"
    names = dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith("VISAVIS_"))
    # The components read them when they are first imported.
    os.environ.update(names)
    return {key.removeprefix("VISAVIS_").removesuffix("_IMAGE").lower(): name for key, name in names.items()}
