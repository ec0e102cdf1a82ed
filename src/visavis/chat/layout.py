"""Lays segments out as one sequence in which every round of a chat is supervised at once.

A generated image stands in the sequence twice: its 64 query tokens (which later tokens never see) and, at the same
positions, its re-reading. One pass over this layout equals chatting round by round with the queries' cache dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.chat.template import WHOLE, ImageSegment, Segment, Template, TextSegment
from visavis.models.mllm import IGNORED, MllmBatch

# The arrays of a layout, in order, and what stands where there is nothing.
_FIELDS = {
    "input_ids": 0,
    "position_ids": 0,
    "previous": -1,
    "labels": IGNORED,
    "block": -1,
    "read": -1,
    "write": -1,
}


@dataclass(frozen=True)
class Layout:
    """One conversation as arrays of length L (see `MllmBatch` for their meaning).

    Attributes:
        block: Number of the query block a token belongs to, -1 outside.
        read: `(picture, offset)` flattened as picture * image_tokens + offset, -1 elsewhere; `picture` is local.
        centres: Centre (x, y) of the pictures that show a part of another.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    previous: np.ndarray
    labels: np.ndarray
    block: np.ndarray
    read: np.ndarray
    write: np.ndarray
    centres: dict[int, tuple[float, float]]

    def __len__(self) -> int:
        return len(self.input_ids)


def lay_out(segments: list[Segment], template: Template, *, reread: bool = True) -> Layout:
    """Builds the arrays of one conversation.

    An answer of words alone ends with a supervised EOS in every round, as in the chat that ends there; the EOS is a
    label and no token, for the chat that goes on has none.

    Args:
        segments: Rendered by `Template.segments`.
        template: Gives the ids of the query tokens.
        reread: Whether generated images are read again; without, the turns of a sample are independent requests.
    """
    count = len(template.queries)
    offsets = np.arange(count)
    final = max(
        (i for i, s in enumerate(segments) if isinstance(s, ImageSegment) and s.generated), default=-1
    )
    parts = [np.empty((len(_FIELDS), 0), dtype=np.int64)]
    targets: dict[int, int] = {}
    position, last, blocks, size = 0, -1, 0, 0

    def push(
        ids: tuple[int, ...], block: int = -1, read: NDArray | int = -1, write: NDArray | int = -1
    ) -> None:
        """Appends tokens that follow token `last` from `position` on."""
        nonlocal size
        part = np.empty((len(_FIELDS), len(ids)), dtype=np.int64)
        part[0] = ids
        part[1] = np.arange(position, position + len(ids))
        part[2] = np.arange(size - 1, size + len(ids) - 1)
        part[2, :1] = last
        part[3], part[4], part[5], part[6] = IGNORED, block, read, write
        parts.append(part)
        size += len(ids)

    for number, segment in enumerate(segments):
        if isinstance(segment, ImageSegment):
            where = segment.picture * count + offsets
            if segment.generated:
                push(template.queries, block=blocks, write=where)
                blocks += 1
                if number == final and _only_tags_follow(segments, number, template):
                    break
                if not reread:
                    position += count
                    continue
            push(template.queries, read=where)
            last = size - 1
            position += count
            continue
        if not segment.ids:
            continue
        if segment.supervised:
            # A token is taught at the one before it, which need not stand right before it in the row.
            before = [last, *range(size, size + len(segment.ids) - 1)]
            targets |= dict(zip(before, segment.ids, strict=True))
        push(segment.ids)
        last = size - 1
        position += len(segment.ids)
        if segment.supervised and _words_end_here(segments, number):
            targets[last] = template.eos
    arrays = np.concatenate(parts, axis=1)
    targets.pop(-1, None)
    arrays[3, list(targets)] = list(targets.values())
    centres = {s.picture: s.centre for s in segments if isinstance(s, ImageSegment) and s.centre != WHOLE}
    return Layout(**dict(zip(_FIELDS, arrays, strict=True)), centres=centres)


def _only_tags_follow(segments: list[Segment], number: int, template: Template) -> bool:
    """Whether nothing but the closing tag and EOS follows: then the image need not be read again."""
    tags = ((template.image_close,), (template.eos,))
    return all(not isinstance(s, ImageSegment) and s.ids in tags for s in segments[number + 1 :])


def _words_end_here(segments: list[Segment], number: int) -> bool:
    """Whether an answer ends with the words of a segment, and another turn follows."""
    follower = segments[number + 1] if number + 1 < len(segments) else None
    return isinstance(follower, TextSegment) and not follower.supervised


def collate(
    layouts: Sequence[Layout],
    pictures: Sequence[Sequence[Any]],
    image_tokens: int,
    weights: Sequence[Sequence[float]],
    rows: Sequence[Sequence[int]] | None = None,
) -> MllmBatch:
    """Puts layouts into the rows of a batch; no chat sees another, and rows are padded at their ends.

    Args:
        layouts: One for each conversation; none make a row of padding.
        pictures: For each conversation its pictures' tokens `[4 * image_tokens, token_dim]`, by local number.
        image_tokens: Tokens of an image block.
        weights: Regression weight of each picture.
        rows: Numbers of the conversations in each row, from `visavis.training.packing`; None: a row for each.
    """
    rows = [[number] for number in range(len(layouts))] if rows is None else rows
    length = max((sum(len(layouts[number]) for number in row) for row in rows), default=1)
    shape = max(len(rows), 1), length
    filled = {name: np.full(shape, empty, dtype=np.int64) for name, empty in _FIELDS.items()}
    # A padding token is a chat of its own: it sees itself, or its softmax would be empty.
    chat = np.arange(-length, 0)[None].repeat(shape[0], axis=0)
    first = np.cumsum([0, *(len(group) for group in pictures)]) * image_tokens
    for row, numbers in enumerate(rows):
        start = 0
        for number in numbers:
            layout = layouts[number]
            place = (row, slice(start, start + len(layout)))
            for name, array in filled.items():
                values = getattr(layout, name)
                shift = {"read": first[number], "write": first[number], "previous": start}.get(name, 0)
                array[place] = np.where(values >= 0, values + shift, values) if shift else values
            chat[place] = number
            start += len(layout)
    tensors = {name: torch.from_numpy(array) for name, array in filled.items()}
    mask = visible(torch.from_numpy(chat), tensors.pop("block"))
    flat = [np.asarray(tokens, dtype=np.float32) for group in pictures for tokens in group]
    stacked: Tensor = torch.from_numpy(np.stack(flat)) if flat else torch.zeros(1, 4 * image_tokens, 1)
    weight = torch.tensor([value for group in weights for value in group] or [1.0])
    return MllmBatch(
        mask=mask, pictures=stacked, weights=weight, centres=_centres(layouts, pictures), **tensors
    )


def _centres(layouts: Sequence[Layout], pictures: Sequence[Sequence[Any]]) -> Tensor | None:
    """Returns the centre `[P, 2]` of what each picture shows, None if all are whole."""
    if not any(layout.centres for layout in layouts):
        return None
    starts = np.cumsum([0, *(len(group) for group in pictures)])
    centres = torch.tensor(WHOLE).repeat(int(starts[-1]), 1)
    for layout, start in zip(layouts, starts, strict=False):
        for picture, centre in layout.centres.items():
            centres[start + picture] = torch.tensor(centre)
    return centres


def visible(chat: Tensor, block: Tensor) -> Tensor:
    """Returns which tokens `[R, L, L]` (bool) a token sees: those before it in its chat, but no other query block.

    Args:
        chat: Number of each token's chat, `[R, L]`.
        block: Number of its query block in its chat, -1 outside, `[R, L]`.
    """
    length = chat.shape[1]
    seen = chat[:, :, None] == chat[:, None, :]
    seen &= (block[:, None, :] < 0) | (block[:, None, :] == block[:, :, None])
    return seen & torch.ones(length, length, dtype=torch.bool).tril()
