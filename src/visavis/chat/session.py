"""A conversation with the model: words in, words and pictures out, the whole history kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visavis.chat.model import ChatModel, Picture
from visavis.chat.template import Turn, assistant, user


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
        numbers = [len(self.tokens) + index for index in range(len(pictures))]
        if pictures:
            self.tokens += list(self.model.encode(pictures))
        self.turns.append(user(*numbers, text))
        reply = self.model.respond([self.turns], [self.tokens])[0]
        if reply.tokens is None:
            self.turns.append(assistant(reply.text))
            return Answer(reply.text, None)
        picture = self.model.paint(reply.tokens[None], self.seed)[0]
        self.tokens += list(self.model.encode([picture]))
        self.turns.append(assistant(reply.text, len(self.tokens) - 1))
        return Answer(reply.text, picture)
