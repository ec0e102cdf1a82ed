"""Lets the tests of this folder import their shared helpers, and lends them a model that answers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from talking import Painting, answer_with_a_picture, chat_model


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Painting:
    """A model that always says "generated an image" and paints one."""
    made = chat_model()
    answer_with_a_picture(made, monkeypatch)
    return made
