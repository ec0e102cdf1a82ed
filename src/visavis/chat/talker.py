"""Answers several chats at once, and keeps what was read of each: the core of terminal, page and service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visavis.chat.casing import capitals_in, is_uncased, with_capitals
from visavis.chat.conversation import ASSISTANT, USER, Message, Part, Picture
from visavis.chat.memory import Memory, Store
from visavis.chat.model import ChatModel, Reply
from visavis.chat.reading import Chat
from visavis.chat.template import Turn, assistant, user
from visavis.chat.views import parts_of
from visavis.files import sha256_bytes

MEBIBYTE = 2**20
_PICTURES_SHARE = 8  # one part in so many of the memory is for features of pictures


@dataclass(frozen=True)
class Wish:
    """How an answer is wanted.

    Attributes:
        seed: Of the picture; of the words too if `temperature` is not 0.
        candidates: Pictures to choose from, with the seeds from `seed` on.
        steps: Evaluations of the detokenizer; its own number if None.
        guidance: Scale of its guidance; its own if None.
        identity: How closely pictures keep to those shown before: 1 as learned, 0 from the words only, above 1 more.
        temperature: Of the words; 0 takes the likeliest.
        pictures: Most pictures of one answer, which the model puts between its words as it likes.
    """

    seed: int = 0
    candidates: int = 1
    steps: int | None = None
    guidance: float | None = None
    identity: float = 1.0
    temperature: float = 0.0
    pictures: int = 1


@dataclass(frozen=True)
class Request:
    """A chat that waits for an answer.

    Attributes:
        messages: The chat; the last message is the user's.
        wish: How the answer is wanted.
        owner: Whose chat it is.
        hear: Is called with the words so far; the answer ends where it returns False.
        watch: Is called with a picture as it is half painted; its painting ends where it returns False.
    """

    messages: Sequence[Message]
    wish: Wish = Wish()
    owner: str = ""
    hear: Callable[[str], bool] | None = None
    watch: Callable[[Picture], bool] | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said.

    Attributes:
        message: Words and pictures in their order.
        others: The other candidates of the last picture.
        tokens: Tokens of the pictures, as the model predicted them.
    """

    message: Message
    others: tuple[Picture, ...] = ()
    tokens: tuple[NDArray[np.float32], ...] = ()

    @property
    def text(self) -> str:
        """The words alone."""
        return self.message.text

    @property
    def picture(self) -> Picture | None:
        """The last picture, if there is one."""
        return self.message.pictures[-1] if self.message.pictures else None


@dataclass
class Features:
    """Tokens `[T, d]` of a picture, kept by its content."""

    tokens: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.tokens.nbytes


@dataclass
class _Draft:
    """An answer that is being made; `names` is how the chat writes names, None for a model that knows itself."""

    request: Request
    names: dict[str, str] | None
    parts: list[Part] = field(default_factory=list)
    others: tuple[Picture, ...] = ()
    tokens: list[NDArray[np.float32]] = field(default_factory=list)
    ended: bool = False

    def written(self, text: str) -> str:
        """Returns the model's words as they are shown."""
        return text if self.names is None else with_capitals(text, self.names)


class Talker:
    """Answers chats with one model and remembers what it read; for one thread at a time.

    Args:
        model: The model.
        memory_mib: Room for what was read of chats, an eighth of it for their pictures.
    """

    def __init__(self, model: ChatModel, memory_mib: int = 512) -> None:
        self.model = model
        self.uncased = is_uncased(model.tokenizer)
        room = memory_mib * MEBIBYTE
        self.features: Store[Features] = Store(room // _PICTURES_SHARE)
        self.memories: Store[Memory] = Store(room - room // _PICTURES_SHARE)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers all requests; what each gets does not depend on the others.

        Raises:
            VisavisError: If a chat cannot be read, or guidance is asked of a model that was not taught it.
        """
        drafts = [_Draft(request, self._names(request)) for request in requests]
        while talking := [draft for draft in drafts if not draft.ended]:
            replies = self.model.respond([self._chat(draft) for draft in talking], self.memories)
            for draft, reply in zip(talking, replies, strict=True):
                if reply.text:
                    draft.parts.append(draft.written(reply.text))
                shown = len(draft.tokens) + 1
                draft.ended = reply.tokens is None or shown >= draft.request.wish.pictures
            self._paint(list(zip(talking, replies, strict=True)))
        return [
            Answer(Message(ASSISTANT, tuple(draft.parts)), draft.others, tuple(draft.tokens))
            for draft in drafts
        ]

    def _chat(self, draft: _Draft) -> Chat:
        request = draft.request
        messages = [*request.messages]
        if draft.parts:
            messages.append(Message(ASSISTANT, tuple(draft.parts)))
        turns, seen = turns_of(messages, self.model.mllm.config.views, self.model.picture_size)
        names = [content_of(picture) for picture in seen]
        wish, hear = request.wish, request.hear
        return Chat(
            turns,
            self._tokens(seen, names),
            names,
            request.owner,
            wish.identity,
            wish.temperature,
            wish.seed,
            hear and (lambda text: hear(draft.written(text))),
        )

    def _names(self, request: Request) -> dict[str, str] | None:
        return capitals_in(message.text for message in request.messages) if self.uncased else None

    def _tokens(self, pictures: list[Picture], names: list[str]) -> list[NDArray[np.float32]]:
        found = {name: self.features.get(name) for name in names}
        fresh = {name: p for name, p in zip(names, pictures, strict=True) if found[name] is None}
        if fresh:
            for name, tokens in zip(fresh, self.model.encode(list(fresh.values())), strict=True):
                found[name] = Features(tokens)
                self.features.put(name, found[name])  # type: ignore[arg-type]
        return [features.tokens for name in names if (features := found[name]) is not None]

    def _paint(self, replied: list[tuple[_Draft, Reply]]) -> None:
        """Paints the pictures of some answers, those with equal settings together."""
        groups: dict[tuple[int | None, float | None], list[tuple[_Draft, Reply]]] = {}
        for draft, reply in replied:
            if reply.tokens is not None:
                wish = draft.request.wish
                groups.setdefault((wish.steps, wish.guidance), []).append((draft, reply))
        for (steps, guidance), members in groups.items():
            owners = [(d, r, n) for d, r in members for n in range(d.request.wish.candidates)]
            pictures = self.model.paint(
                np.stack([reply.tokens for _, reply, _ in owners if reply.tokens is not None]),
                [draft.request.wish.seed + number for draft, _, number in owners],
                steps=steps,
                guidance=guidance,
                watch=_watch([(draft, number) for draft, _, number in owners]),
            )
            for (draft, reply, number), picture in zip(owners, pictures, strict=True):
                if number:
                    draft.others = (*draft.others, picture)
                    continue
                assert reply.tokens is not None
                draft.parts.append(picture)
                draft.others = ()
                draft.tokens.append(reply.tokens)


def _watch(
    painted: list[tuple[_Draft, int]],
) -> Callable[[int, Callable[[], list[Picture]]], bool] | None:
    """Shows half-painted pictures to those who want to see them; all stop when nobody waits any more."""
    watchers = {
        place: draft.request.watch
        for place, (draft, number) in enumerate(painted)
        if draft.request.watch is not None and not number
    }
    if not watchers:
        return None
    gone: set[int] = set()

    def watch(_: int, look: Callable[[], list[Picture]]) -> bool:
        pictures = look()
        for place, tell in watchers.items():
            if place not in gone and not tell(pictures[place]):
                gone.add(place)
        return len(gone) < len({id(draft) for draft, _ in painted})

    return watch


def turns_of(messages: Sequence[Message], views: int, size: int) -> tuple[list[Turn], list[Picture]]:
    """Returns the turns of a chat, and the pictures that they number, parts of large ones included.

    Args:
        messages: The chat.
        views: Most views that the model reads a user's picture in.
        size: Side of a view, px.
    """
    turns: list[Turn] = []
    seen: list[Picture] = []
    for message in messages:
        content: list[str | int | dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, str):
                content.append(part)
                continue
            start = len(seen)
            cut = parts_of(part, size, views - 1) if views > 2 and message.role == USER else []
            seen += [*(view for view, _ in cut), part]
            placed = [[start + index, x, y] for index, (_, (x, y)) in enumerate(cut)]
            number = start + len(cut)
            content.append({"type": "image", "image": number, "views": placed} if placed else number)
        if message.role == USER:
            turns.append(user(*content))
        else:
            turns.append(assistant(*(part for part in content if not isinstance(part, dict))))
    return turns, seen


def content_of(picture: Picture) -> str:
    """Returns the sha256 of a picture's shape and pixels."""
    return sha256_bytes(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes())
