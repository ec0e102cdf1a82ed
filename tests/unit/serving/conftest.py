"""Lets the tests of this folder import shared helpers, and lends them a service that answers on a real port."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chat")]

from served import Served, serving  # noqa: E402 - beside this file
from talking import Painting, answer_with_a_picture, chat_model  # noqa: E402 - in the folder of the chat's tests


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Painting:
    """A model that always says "generated an image" and paints one."""
    made = chat_model()
    answer_with_a_picture(made, monkeypatch)
    return made


@pytest.fixture
def served(model: Painting) -> Iterator[Served]:
    """The service without keys on a port of this machine."""
    with serving(model) as running:
        yield running
