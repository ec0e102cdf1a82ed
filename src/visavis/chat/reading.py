"""What of a chat is read, and what is remembered of it already.

A chat is read in spans, each from behind a user's turn to behind the next. If it is longer than the model can read,
rounds behind the first are left out, the oldest before the others: the first says who the people are (SEED-Story keeps
its beginning and a window for the same reason). They are left out four at a time, so that most rounds find the chat as
the round before left it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visavis.chat.memory import Memory, Store, span_key
from visavis.chat.template import ImageSegment, Segment, Template, Turn
from visavis.errors import VisavisError

_STRIDE = 4


@dataclass(frozen=True)
class Chat:
    """A chat to be answered.

    Attributes:
        turns: Its turns; images are numbers of `pictures`.
        pictures: Tokens `[T, d]` of its pictures, by number.
        names: sha256 of what each picture shows; None: nothing is remembered of this chat.
        owner: Whose chat it is; nothing remembered of one owner's chats serves another's.
        identity: How closely pictures keep to those shown before: 1 as learned, 0 not at all (from the words only),
            above 1 more closely.
        temperature: Of the words; 0 takes the likeliest.
        seed: Of the words, if `temperature` is not 0.
        hear: Is called with the words so far after each word; the answer ends where it returns False.
    """

    turns: list[Turn]
    pictures: Sequence[NDArray[np.floating[Any]]] = ()
    names: Sequence[str] | None = None
    owner: str = ""
    identity: float = 1.0
    temperature: float = 0.0
    seed: int = 0
    hear: Callable[[str], bool] | None = None


@dataclass
class Reading:
    """What of a chat is still to be read.

    Attributes:
        past: What is remembered of its beginning; None if nothing is.
        new: What is read now, its pictures numbered anew.
        pictures: Their tokens.
        ends: Where each span of `new` ends, in tokens.
        keys: Key of each span that is read now.
        known: Keys of the spans before.
        count: Tokens of `new`.
    """

    past: Memory | None
    new: list[Segment]
    pictures: list[NDArray[np.floating[Any]]]
    ends: list[int]
    keys: list[str]
    known: list[str]

    @property
    def count(self) -> int:
        """Tokens that are read now."""
        return self.ends[-1] if self.ends else 0

    @classmethod
    def of(
        cls, chat: Chat, template: Template, room: int, memories: Store[Memory] | None, fingerprint: str
    ) -> Reading:
        """Finds the longest beginning of a chat that is remembered.

        Args:
            chat: The chat.
            template: Renders it.
            room: Most tokens of what is read.
            memories: What is remembered.
            fingerprint: Of the model, whose memories serve no other.

        Raises:
            VisavisError: If the first round and the last do not fit.
        """
        spans = within(spans_of(chat.turns, template), template, room)
        past, known, keys = None, list[str](), list[str]()
        if memories is not None and chat.names is not None:
            key = f"{fingerprint}\n{chat.owner}"
            for span in spans:
                key = span_key(key, span, chat.names)
                keys.append(key)
            for key in keys:
                if (memory := memories.get(key)) is None:
                    break
                past = memory
                known.append(key)
            memories.use(known)
        new = spans[len(known) :]
        sizes = [length(span, template) for span in new]
        segments, pictures = _renumbered([s for span in new for s in span], chat.pictures)
        return cls(past, segments, pictures, np.cumsum(sizes).tolist(), keys[len(known) :], known)

    def keep(self, left: Sequence[Memory], memories: Store[Memory]) -> None:
        """Remembers what reading left behind."""
        for key, memory in zip(self.keys, left, strict=False):
            memories.put(key, memory)
        memories.use([*self.known, *self.keys])


def spans_of(turns: Sequence[Turn], template: Template) -> list[list[Segment]]:
    """Renders a chat as spans that end behind a user's turn, or at its end; images are read ones."""
    spans: list[list[Segment]] = [[]]
    for number, turn in enumerate(turns):
        for segment in template.of_turn(turn, number):
            if isinstance(segment, ImageSegment):
                segment = replace(segment, generated=False)
            spans[-1].append(segment)
        if turn["role"] == "user" and number < len(turns) - 1:
            spans.append([])
    return spans


def length(span: Sequence[Segment], template: Template) -> int:
    """Returns the tokens of a span."""
    return sum(len(template.queries) if isinstance(s, ImageSegment) else len(s.ids) for s in span)


def within(spans: list[list[Segment]], template: Template, room: int) -> list[list[Segment]]:
    """Leaves out rounds behind the first until the rest fits.

    Raises:
        VisavisError: If the first round and the last do not fit.
    """
    sizes = [length(span, template) for span in spans]
    dropped = 0
    while sizes[0] + sum(sizes[1 + dropped :]) > room and dropped < len(spans) - 2:
        dropped = min(dropped + _STRIDE, len(spans) - 2)
    if sizes[0] + sum(sizes[1 + dropped :]) > room:
        raise VisavisError(
            f"the first round and the last have {sizes[0] + sum(sizes[1 + dropped :])} tokens, the model reads {room}",
            fix="say less at once, or show fewer pictures",
        )
    return [spans[0], *spans[1 + dropped :]]


def without_pictures(chat: Chat) -> Chat:
    """Returns the chat in which no picture was shown."""
    turns = [
        {**turn, "content": [part for part in turn["content"] if part["type"] == "text"]}
        for turn in chat.turns
    ]
    return replace(chat, turns=turns, pictures=(), names=None)


def _renumbered(
    segments: list[Segment], pictures: Sequence[NDArray[np.floating[Any]]]
) -> tuple[list[Segment], list[NDArray[np.floating[Any]]]]:
    """Numbers the pictures that are read from 0 on, and returns their tokens."""
    numbers = list(dict.fromkeys(s.picture for s in segments if isinstance(s, ImageSegment)))
    renumbered = [
        replace(s, picture=numbers.index(s.picture)) if isinstance(s, ImageSegment) else s for s in segments
    ]
    return renumbered, [pictures[number] for number in numbers]
