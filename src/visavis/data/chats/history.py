"""Chats that need history beyond the last turn: p(picture | words, all turns before), not Markov (paper, 3.3.1).

Four kinds, all from what is there of a clip. `rounds`: more than two personalisation rounds. `rollback`: back to
the first picture. `undo`: the picture before. `correction`: the other person was meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from visavis.data.chats.material import Couple, assistant_turn, user_turn
from visavis.data.chats.name_rounds import asking
from visavis.data.config import HistoryConfig
from visavis.data.published.shards import Sample, Turn

_LEAST_ROUNDS = 3
_MOST_UNDONE = 2
_REQUESTS = tuple((person, target) for person in (0, 1) for target in ("face", "portrait"))


def history_chats(couple: Couple) -> Iterator[Sample]:
    """Yields a chat of each kind that is turned on and that falls to the clip's share.

    The tags hold `kind`, how the caption tells the people apart, and `shows`, one entry for each assistant turn:
    `turn` (its index), `person` (0 left, 1 right, None both), `frame`, `target` (`picture`, `face` or
    `portrait`), `depends_on` and, for one person, what the caption tells of them. `depends_on` is the index of
    the turn that holds what is needed: the first turn that shows the very same picture; else the first picture;
    for the first picture the words that ask for it.
    """
    config = couple.material.config.history
    for kind in config.kinds:
        rng = couple.material.rng(f"history-{kind}")
        if rng.random() < config.share:
            yield _Chat(couple, rng).of_kind(kind)


class _Chat:
    """A chat under construction. A picture that comes again stands again in its images, with an equal digest."""

    def __init__(self, couple: Couple, rng: np.random.Generator) -> None:
        self.couple, self.rng = couple, rng
        self.prompts = couple.material.config.prompts
        self.config: HistoryConfig = couple.material.config.history
        self.turns: list[Turn] = []
        self.images: list[Path] = []
        self.shows: list[dict[str, Any]] = []
        self._answer(self.prompts.picture.replace("{caption}", couple.caption["caption"]), None)

    def of_kind(self, kind: str) -> Sample:
        """Completes the chat."""
        {
            "rounds": self._rounds,
            "rollback": self._rollback,
            "undo": self._undo,
            "correction": self._correction,
        }[kind]()
        clip, caption = self.couple.material, self.couple.caption["caption"]
        tags = {"kind": kind, "shows": self.shows, **self.couple.order()}
        return clip.sample("history", kind, caption, self.turns, self.images, clip.people, tags)

    def _rounds(self) -> None:
        for request in self._requests(_LEAST_ROUNDS, self.config.most_rounds):
            self._ask(*request)

    def _rollback(self) -> None:
        for request in self._requests(1, self.config.most_rounds - 1):
            self._ask(*request)
        if self.rng.random() < 0.5:
            self._answer(self._one_of(self.config.back), None)
        else:
            # The words say that the first picture is meant, so its own close-up is the answer, not the last frame's.
            person = int(self.rng.integers(2))
            self._answer(self._named(self.config.back_to, person), person, "first", "face")

    def _undo(self) -> None:
        requests = list(self._requests(1, self.config.most_rounds - 1))
        for request in requests:
            self._ask(*request)
        undone = int(self.rng.integers(1, min(len(requests), _MOST_UNDONE) + 1))
        for left in range(len(requests) - 1, len(requests) - 1 - undone, -1):
            words = self._one_of(self.config.undo)
            if left:
                person, target = requests[left - 1]
                self._answer(words, person, "last", target)
            else:
                self._answer(words, None)

    def _correction(self) -> None:
        requests = list(self._requests(1, 2))
        for request in requests:
            self._ask(*request)
        person, target = requests[-1]
        self._answer(self._named(self.config.correction, 1 - person), 1 - person, "last", target)

    def _requests(self, least: int, most: int) -> Iterator[tuple[int, str]]:
        """Yields person and target of `least` to `most` rounds; nothing is asked again before all was asked."""
        count = int(self.rng.integers(least, most + 1))
        while count > 0:
            for index in self.rng.permutation(len(_REQUESTS))[:count]:
                yield _REQUESTS[int(index)]
            count -= len(_REQUESTS)

    def _ask(self, person: int, target: str) -> None:
        name = self.couple.caption["names"][person]
        self._answer(asking(self.prompts, target, name), person, "last", target)

    def _answer(self, words: str, person: int | None, frame: str = "first", target: str = "picture") -> None:
        """Adds a round: the words, and what they are answered with."""
        shown = {"person": person, "frame": frame, "target": target}
        told = {} if person is None else self.couple.told(person)
        same = (entry["turn"] for entry in self.shows if shown.items() <= entry.items())
        needed = next(same, self.shows[0]["turn"] if self.shows else 0)
        image = self.couple.material.scene() if person is None else self.couple.shot(person, frame, target)
        self.turns += [user_turn(words), assistant_turn(self.prompts.reply, len(self.images))]
        self.images.append(image)
        self.shows.append({"turn": len(self.turns) - 1, **shown, **told, "depends_on": needed})

    def _one_of(self, wordings: tuple[str, ...]) -> str:
        return wordings[int(self.rng.integers(len(wordings)))]

    def _named(self, wordings: tuple[str, ...], person: int) -> str:
        return self._one_of(wordings).replace("{name}", self.couple.caption["names"][person])
