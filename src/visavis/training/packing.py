"""Packing: which chats share a row, and which are too long for one.

Padding is computed in full and learned from not at all; but a row that is longer than needed costs attention, which
grows with its square. So rows are filled best-fit-decreasing, at the length that computes the batch soonest.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import LlamaConfig

from visavis.chat.layout import lay_out
from visavis.chat.template import Template

TOO_LONG = "too_long"
_CANDIDATES = 8


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Puts chats into rows, best-fit-decreasing: the longest first, each where the least room is left.

    Args:
        lengths: Tokens of each chat, none above `capacity`.
        capacity: Tokens of a row.

    Returns:
        Numbers of the chats in each row; equal lengths give equal rows.

    Raises:
        ValueError: If a chat is longer than a row.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if lengths[number] > capacity:
            raise ValueError(f"chat {number} has {lengths[number]} tokens, a row holds {capacity}")
        found = bisect_left(room, (lengths[number], 0))
        if found == len(room):
            rows.append([number])
            left, row = capacity, len(rows) - 1
        else:
            left, row = room.pop(found)
            rows[row].append(number)
        insort(room, (left - lengths[number], row))
    return rows


def quickest_rows(lengths: Sequence[int], max_length: int, linear_length: float) -> list[list[int]]:
    """Packs chats into rows of the length, up to `max_length`, at which a pass over them costs least.

    Args:
        lengths: Tokens of each chat, none above `max_length`.
        max_length: Most tokens of a row.
        linear_length: Row length at which attention costs as much as all linear maps (`linear_length_of`).
    """
    if not lengths:
        return []
    longest = max(lengths)
    top = max(longest, min(max_length, sum(lengths)))
    best: tuple[float, list[list[int]]] | None = None
    for capacity in np.unique(np.linspace(longest, top, _CANDIDATES).astype(int)).tolist():
        rows = pack(lengths, capacity)
        length = max(sum(lengths[number] for number in row) for row in rows)
        cost = len(rows) * length * (linear_length + length)
        if best is None or cost < best[0]:
            best = cost, rows
    assert best is not None
    return best[1]


def linear_length_of(config: LlamaConfig) -> float:
    """Returns the row length at which a LLaMA's attention costs as much as its linear maps.

    A token costs 2 FLOP for each weight of a layer, and 4 FLOP for each channel of each token of its row.
    """
    width = config.hidden_size
    heads = config.num_attention_heads
    keys = width * (config.num_key_value_heads or heads) // heads
    weights = 2 * width * width + 2 * width * keys + 3 * width * config.intermediate_size
    return 2 * weights / (4 * width)


def fitting(
    samples: Sequence[dict[str, Any]], template: Template, max_length: int
) -> tuple[list[dict[str, Any]], int]:
    """Returns the samples that fit into a row whole, and how many do not; none is ever cut."""
    kept = [
        sample
        for sample in samples
        if len(lay_out(template.segments(sample["turns"]), template)) <= max_length
    ]
    return kept, len(samples) - len(kept)
