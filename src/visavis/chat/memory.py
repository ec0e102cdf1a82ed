"""What reading a chat leaves behind, kept so that the next round reads only what is new.

A memory holds the keys and values of one span of a chat and refers to the memory of what stands before it, so chats
that begin alike share their beginning. A span ends where a turn ends: a match never stops inside an image.

Source: the paper, section 3.3; SEED-Story `vis_george_sink.py` (the queries' cache is dropped, the image is read
again); the keys name the content of pictures and the owner, which other servers forgot (vLLM #20261, SGLang #2151).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from visavis.chat.template import ImageSegment, Segment
from visavis.files import sha256_bytes


@dataclass(frozen=True, eq=False)
class Memory:
    """What is left of one span of a chat.

    Attributes:
        parent: What is left of all before it; None at the start of a chat.
        keys: For each layer `[heads, n, head_dim]`, of the span's n tokens.
        values: The same for values.
        recent: Input embeddings `[taps, D]` of the last tokens, which the token shift of the next one reads.
        hidden: Last hidden state `[D]`, from which the next word is drawn.
        length: Tokens of the chat up to here.
    """

    parent: Memory | None
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    recent: Tensor
    hidden: Tensor
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of the span alone."""
        return sum(t.nbytes for t in (*self.keys, *self.values, self.recent, self.hidden))

    def spans(self) -> list[Memory]:
        """Returns the memories of the chat from its start to this one."""
        chain: list[Memory] = []
        memory: Memory | None = self
        while memory is not None:
            chain.append(memory)
            memory = memory.parent
        return chain[::-1]


class Sized(Protocol):
    """Whatever knows its size."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""


T = TypeVar("T", bound=Sized)


class Store(Generic[T]):
    """Keeps what was used last, up to a number of bytes; safe to use from several threads.

    What does not fit is forgotten, least recently used first, and computed again when it is asked for.

    Args:
        budget: Most bytes.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = self.hits = self.misses = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[str, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> T | None:
        """Returns what is kept under a key, which counts as a use."""
        with self._lock:
            item = self._items.get(key)
            self.hits, self.misses = self.hits + (item is not None), self.misses + (item is None)
            if item is not None:
                self._items.move_to_end(key)
            return item

    def put(self, key: str, item: T) -> None:
        """Keeps something, unless it is larger than all there is room for."""
        with self._lock:
            if key in self._items or item.nbytes > self.budget:
                return
            self._items[key] = item
            self.used += item.nbytes
            while self.used > self.budget:
                self.used -= self._items.popitem(last=False)[1].nbytes

    def use(self, keys: Sequence[str]) -> None:
        """Marks a chat's spans, in their order, as used: the first becomes the last to be forgotten."""
        with self._lock:
            for key in reversed(keys):
                if key in self._items:
                    self._items.move_to_end(key)


def span_key(before: str, segments: Sequence[Segment], names: Sequence[str]) -> str:
    """Returns the key of a span: sha256 of what stands before it, its tokens, and its pictures' content.

    Args:
        before: Key of the span before it; at the start of a chat whatever separates owners and models.
        segments: The span.
        names: sha256 of each picture of the chat, by number.
    """
    said = [
        f"picture {names[s.picture]} at {s.centre}" if isinstance(s, ImageSegment) else f"words {s.ids}"
        for s in segments
    ]
    return sha256_bytes("\n".join([before, *said]).encode())
