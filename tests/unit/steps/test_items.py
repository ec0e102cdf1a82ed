"""What the evaluation is handed: chats and pictures that share people stand in one cluster."""

from __future__ import annotations

from typing import Any

import numpy as np

from visavis.data.published.tokens import TokenStore
from visavis.steps.items import Painted, round_items


def chat(name: str, people: list[str], rows: list[int]) -> dict[str, Any]:
    tags = {
        "described": [True, False],
        "asked_side": ["left", "right"],
        "order_left_first": True,
        "side_told": [False, False],
        "other_described": [False, True],
    }
    return {
        "id": name,
        "set": "rounds",
        "caption": "two friends",
        "people": people,
        "rows": rows,
        "tags": tags,
    }


def test_chats_that_hang_together_through_a_third_are_one_cluster() -> None:
    store = TokenStore(
        np.zeros((3, 64, 4), np.float16),
        np.zeros((3, 1, 2, 2), np.float16),
        np.zeros((3, 8, 8, 3), np.uint8),
        [],
    )
    people = {"a": ["ann", "bob"], "b": ["cleo", "dan"], "c": ["bob", "eve"], "d": ["eve", "fay"]}
    chats = [chat(name, who, [0, 1, 2]) for name, who in people.items()]
    picture, token = np.zeros((8, 8, 3), np.uint8), np.zeros((64, 4), np.float32)
    painted = Painted([[picture] * 3] * 4, [[token] * 3] * 4)
    closeups, firsts = round_items(store, chats, painted)
    clusters = {item.chat_id: item.cluster for item in closeups}
    assert clusters["a"] == clusters["c"] == clusters["d"] != clusters["b"]
    assert {item.item_id: item.cluster_id for item in firsts} == clusters
