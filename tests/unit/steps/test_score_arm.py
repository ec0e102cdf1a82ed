"""Scoring an arm: it is asked in the words that it was trained with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from visavis.chat.template import KEEP_IDENTICAL, KEPT, assistant, user
from visavis.recipes import edit, smoke
from visavis.steps import items, score_arm


@pytest.mark.parametrize("with_text", [False, True])
def test_an_arm_is_asked_as_it_was_trained(with_text: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    turns = [user(0, "Generate the image shows a man."), assistant("I have generated an image.", 1)]
    facts = {"id": "a", "set": "pair", "clip_id": "c", "people": ["p"], "caption": "a man"}
    sample = {**facts, "rows": [0, 1], "turns": turns}
    asked: list[dict[str, Any]] = []

    def paint(model: Any, mllm: Any, store: Any, samples: list[dict[str, Any]]) -> items.Painted:
        asked.extend(samples)
        return items.Painted([[picture]] * len(samples), [])

    def loaded(*_: Any) -> SimpleNamespace:
        return SimpleNamespace(mllm=None)

    monkeypatch.setattr(items, "chosen", lambda *_: [sample])
    monkeypatch.setattr(items, "paint", paint)
    for place in (
        "chat.model.ChatModel",
        "models.mllm.Mllm.from_pretrained",
        "packs.loaders.load_image_encoder",
    ):
        monkeypatch.setattr(f"visavis.{place}", loaded)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", loaded)
    recipe = edit(smoke(), {"mllm.pair.keep_identical_text": with_text})
    job: Any = SimpleNamespace(recipe=recipe, pack=None, folder=Path)
    store: Any = SimpleNamespace(pictures=[picture, picture], samples=[sample])
    (item,) = score_arm._single_rounds(job, store, SimpleNamespace(), None)
    assert item.caption == "a man"
    question, answer = (" ".join(p.get("text", "") for p in turn["content"]) for turn in asked[0]["turns"])
    assert (KEEP_IDENTICAL in question, KEPT in answer) == (with_text, with_text)
    assert KEEP_IDENTICAL not in str(sample["turns"]), "the samples are shared with other arms"
