"""What all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Pictures and models here are tiny: more threads only get into each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A tracker that the developer has configured must never receive the runs of tests.
os.environ.pop("MLFLOW_TRACKING_URI", None)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Twice as many workers as cores, for every second test waits for a server or a process of its own."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files that may take longest: a worker that takes one last keeps the others waiting."""
    longest: dict[Path, float] = {}
    for item in items:
        timeout, slow = item.get_closest_marker("timeout"), item.get_closest_marker("slow")
        longest[item.path] = max(longest.get(item.path, 0), timeout.args[0] if timeout else bool(slow))
    items.sort(key=lambda item: -longest[item.path])


@pytest.fixture
def repository() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_tracker_is_left() -> Iterator[None]:
    """Takes back what MLflow keeps for the whole process: the next test must not look for a server that is gone."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
        sys.modules["mlflow"].set_registry_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
