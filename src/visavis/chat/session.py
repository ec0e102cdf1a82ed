"""A conversation with the model: words in, words and pictures out, the whole history kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visavis.chat.model import ChatModel, Picture
from visavis.chat.template import Turn, assistant, user
from visavis.chat.views import parts_of


@dataclass(frozen=True)
class Answer:
    """What the model said, and the picture it made, if any."""

    text: str
    picture: Picture | None


@dataclass
class ChatSession:
    """Talks to one model; earlier pictures are read again from their pixels, as a user sees them."""

    model: ChatModel
    seed: int = 0
    turns: list[Turn] = field(default_factory=list)
    tokens: list[NDArray[np.floating[Any]]] = field(default_factory=list)

    def say(self, text: str, pictures: tuple[Picture, ...] = ()) -> Answer:
        """Says something, with pictures if wanted, and returns the answer."""
        shown, seen = self._views(pictures)
        if seen:
            self.tokens += list(self.model.encode(seen))
        self.turns.append(user(*shown, text))
        reply = self.model.respond([self.turns], [self.tokens])[0]
        if reply.tokens is None:
            self.turns.append(assistant(reply.text))
            return Answer(reply.text, None)
        picture = self.model.paint(reply.tokens[None], self.seed)[0]
        self.tokens += list(self.model.encode([picture]))
        self.turns.append(assistant(reply.text, len(self.tokens) - 1))
        return Answer(reply.text, picture)

    def _views(self, pictures: tuple[Picture, ...]) -> tuple[list[int | dict[str, Any]], list[Picture]]:
        """Returns the parts of a turn that show pictures, and all views of them, numbered from the next one on."""
        shown: list[int | dict[str, Any]] = []
        seen: list[Picture] = []
        most = self.model.mllm.config.views
        for picture in pictures:
            start = len(self.tokens) + len(seen)
            parts = parts_of(picture, self.model.picture_size, most - 1) if most > 2 else []
            seen += [*(part for part, _ in parts), picture]
            views = [[start + index, x, y] for index, (_, (x, y)) in enumerate(parts)]
            shown.append({"type": "image", "image": start + len(parts), "views": views} if parts else start)
        return shown, seen
