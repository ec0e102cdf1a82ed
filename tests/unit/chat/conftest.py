"""Lets the tests of this folder import their shared helpers, and lends them a model that answers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from talking import Painting, chat_model

from visavis.chat.reader import Reader


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Painting:
    """A model that always says "generated" and paints; what it paints depends on what it read."""
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
