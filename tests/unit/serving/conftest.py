"""Lets the tests of this folder import shared helpers, and lends them a service that answers on a real port."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chat")]

from served import Served, serving  # noqa: E402 - beside this file
from talking import Painting, chat_model  # noqa: E402 - in the folder of the chat's tests

from visavis.chat.reader import Reader  # noqa: E402


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Painting:
    """A model that always says "generated an image" and paints one."""
    made = chat_model()
    script = [*made.template.ids("generated an image"), made.template.image_open, made.template.eos]
    plain = Reader.scores

    def scores(reader: Reader) -> torch.Tensor:
        given = plain(reader)
        place = getattr(reader, "said", 0)
        reader.said = place + 1  # type: ignore[attr-defined]
        given[:, script[min(place, len(script) - 1)]] = 1e4
        return given

    monkeypatch.setattr(Reader, "scores", scores)
    return made


@pytest.fixture
def served(model: Painting) -> Iterator[Served]:
    """The service without keys on a port of this machine."""
    with serving(model) as running:
        yield running
