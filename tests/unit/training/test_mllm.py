"""Which words the MLLM is tuned on."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from visavis.training.mllm import with_plan

PLAN = "I have generated an image: on the right a bald head, on the left a blue suit."
REPLY = "I have generated an image."


def chat(number: int, **tags: Any) -> dict[str, Any]:
    def turn(role: str, words: str, *images: int) -> dict[str, Any]:
        shown = [{"type": "image", "image": image} for image in images]
        return {"role": role, "content": [{"type": "text", "text": words}, *shown]}

    turns = [
        turn("user", "Generate an image: Julian and Olivia"),
        turn("assistant", REPLY, 0),
        turn("user", "Generate a close-up photo of Julian"),
        turn("assistant", REPLY, 1),
    ]
    return {"id": f"rounds-{number}", "turns": turns, "tags": tags}


def replies(sample: dict[str, Any]) -> list[str]:
    return [turn["content"][0]["text"] for turn in sample["turns"] if turn["role"] == "assistant"]


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_a_share_of_the_chats_says_who_stands_where_and_nothing_else_changes(share: float) -> None:
    chats = [chat(number, plan=PLAN) for number in range(400)]
    before = copy.deepcopy(chats)
    edited = [with_plan(sample, share) for sample in chats]
    assert chats == before, "the store's own samples stay as they are"
    planned = [sample for sample in edited if replies(sample) == [PLAN, REPLY]]
    assert len(planned) / len(chats) == pytest.approx(share, abs=0.08)
    assert all(sample == chat(n, plan=PLAN) for n, sample in enumerate(edited) if sample not in planned)
    assert all([*map(len, (t["content"] for t in s["turns"]))] == [1, 2, 1, 2] for s in planned)


def test_a_chat_without_a_plan_stays() -> None:
    assert with_plan(chat(0), 1.0) == chat(0)
