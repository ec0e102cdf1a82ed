"""Lays segments out as one sequence in which every round of a chat is supervised at once.

A generated image stands in the sequence twice: its 64 query tokens (which later tokens never see) and, at the same
positions, its re-reading. One pass over this layout equals chatting round by round with the queries' cache dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visavis.chat.template import ImageSegment, Segment, Template
from visavis.models.mllm import IGNORED, MllmBatch


@dataclass(frozen=True)
class Layout:
    """One conversation as arrays of length L (see `MllmBatch` for their meaning).

    Attributes:
        block: Number of the query block a token belongs to, -1 outside.
        read: `(picture, offset)` flattened as picture * image_tokens + offset, -1 elsewhere; `picture` is local.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    previous: np.ndarray
    labels: np.ndarray
    block: np.ndarray
    read: np.ndarray
    write: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    def mask(self) -> np.ndarray:
        """Returns `[L, L]` bool: causal, and a query block is visible to itself alone."""
        length = len(self)
        causal = np.tril(np.ones((length, length), dtype=bool))
        key = self.block[None, :]
        return causal & ((key < 0) | (key == self.block[:, None]))


def lay_out(segments: list[Segment], template: Template, *, reread: bool = True) -> Layout:
    """Builds the arrays of one conversation.

    Args:
        segments: Rendered by `Template.segments`.
        template: Gives the ids of the query tokens.
        reread: Whether generated images are read again; without, the turns of a sample are independent requests.
    """
    ids: list[int] = []
    positions: list[int] = []
    previous: list[int] = []
    labels: list[int] = []
    block: list[int] = []
    read: list[int] = []
    write: list[int] = []
    position, last, blocks = 0, -1, 0

    def push(token: int, at: int, before: int, group: int = -1, reads: int = -1, writes: int = -1) -> None:
        ids.append(token)
        positions.append(at)
        previous.append(before)
        labels.append(IGNORED)
        block.append(group)
        read.append(reads)
        write.append(writes)

    final = max(
        (i for i, s in enumerate(segments) if isinstance(s, ImageSegment) and s.generated), default=-1
    )
    for number, segment in enumerate(segments):
        if isinstance(segment, ImageSegment):
            count = len(template.queries)
            if segment.generated:
                before = last
                for offset, token in enumerate(template.queries):
                    push(token, position + offset, before, blocks, -1, segment.picture * count + offset)
                    before = len(ids) - 1
                blocks += 1
                if number == final and _is_last_content(segments, number):
                    break
                if not reread:
                    position += count
                    continue
            for offset in range(count):
                push(template.queries[offset], position + offset, last, -1, segment.picture * count + offset)
                last = len(ids) - 1
            position += count
            continue
        for token in segment.ids:
            if segment.supervised and last >= 0:
                labels[last] = token
            push(token, position, last)
            last = len(ids) - 1
            position += 1
    arrays = (
        np.asarray(values, dtype=np.int64)
        for values in (ids, positions, previous, labels, block, read, write)
    )
    return Layout(*arrays)


def _is_last_content(segments: list[Segment], number: int) -> bool:
    """Whether nothing but the closing tag and EOS follows: then the image need not be read again."""
    return all(not isinstance(s, ImageSegment) and len(s.ids) == 1 for s in segments[number + 1 :])


def collate(
    layouts: list[Layout], pictures: list[list[Any]], image_tokens: int, weights: list[list[float]]
) -> MllmBatch:
    """Pads layouts into a batch.

    Args:
        layouts: One for each conversation.
        pictures: For each conversation its pictures' tokens `[4 * image_tokens, token_dim]`, by local number.
        image_tokens: Tokens of an image block.
        weights: Regression weight of each picture.
    """
    length = max(len(layout) for layout in layouts)
    count = len(layouts)
    filled = {name: torch.zeros(count, length, dtype=torch.long) for name in ("input_ids", "position_ids")}
    for name, empty in (("previous", -1), ("labels", IGNORED), ("read", -1), ("write", -1)):
        filled[name] = torch.full((count, length), empty, dtype=torch.long)
    mask = torch.eye(length, dtype=torch.bool).repeat(count, 1, 1)
    offset = 0
    for row, layout in enumerate(layouts):
        size = len(layout)
        for name in filled:
            values = getattr(layout, name)
            if name in ("read", "write"):
                values = np.where(values >= 0, values + offset * image_tokens, values)
            filled[name][row, :size] = torch.from_numpy(values)
        mask[row, :size, :size] = torch.from_numpy(layout.mask())
        offset += len(pictures[row])
    flat = [np.asarray(tokens, dtype=np.float32) for group in pictures for tokens in group]
    stacked: Tensor = torch.from_numpy(np.stack(flat)) if flat else torch.zeros(1, 4 * image_tokens, 1)
    weight = torch.tensor([value for group in weights for value in group] or [1.0])
    return MllmBatch(mask=mask, pictures=stacked, weights=weight, **filled)
