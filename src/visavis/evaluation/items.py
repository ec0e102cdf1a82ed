"""What is scored: pictures as the model made them, beside the true ones.

Pictures are uint8 RGB arrays [H, W, 3] of any size. The code that runs the model fills these in; nothing here
knows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from visavis.data.split import Groups

Picture = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class SingleRoundItem:
    """One personalised picture: a face and a caption in, a picture of that person out.

    Attributes:
        item_id: Stable name of the test item; pairs candidate and champion.
        person_id: Who is asked for; items of one person are not independent.
        caption: The words that the model was given.
        source_face: The face that the model was given.
        target: Another true picture of the person, the one that the caption describes.
        generated: What the model made.
        other_face: A face of somebody else to compare with; by default all other people of the test set
            serve.
        description: All that the data set says of the person in words, for slices.
    """

    item_id: str
    person_id: str
    caption: str
    source_face: Picture
    target: Picture
    generated: Picture
    other_face: Picture | None = None
    description: str = ""


@dataclass(frozen=True)
class RoundItem:
    """One close-up round of a chat about two people.

    Attributes:
        chat_id: The chat.
        round: 2 or 3.
        generated: The close-up that the model made.
        asked_true: The true close-up of the person asked for.
        other_true: The true close-up of the other person of the chat.
        described: Whether the caption of round 1 describes the looks of the person asked for.
        asked_side: Where that person stands in the picture of round 1.
        left_first: Whether the caption names the left person first.
        cluster_id: Group of chats that share people, see `clusters_of`; the chat itself by default.
        side_told: Whether the caption says where the person asked for stands; None if unknown.
        other_described: Whether the caption describes the other person's looks; None if unknown.
        history: Whose picture the chat holds in round 1: the given true one, or the model's own.
        first_picture: That picture, for copy-paste.
        person_id: Who is asked for; the chat and the side by default.
        description: All that the data set says of that person in words, for slices.
        generated_tokens: Predicted image tokens [64, d], for the second opinion in token space.
        asked_tokens: Tokens of `asked_true`.
        other_tokens: Tokens of `other_true`.
    """

    chat_id: str
    round: int
    generated: Picture
    asked_true: Picture
    other_true: Picture
    described: bool
    asked_side: Literal["left", "right"]
    left_first: bool
    cluster_id: str | None = None
    side_told: bool | None = None
    other_described: bool | None = None
    history: Literal["given", "own"] = "given"
    first_picture: Picture | None = None
    person_id: str | None = None
    description: str = ""
    generated_tokens: NDArray[np.floating] | None = None
    asked_tokens: NDArray[np.floating] | None = None
    other_tokens: NDArray[np.floating] | None = None

    @property
    def item_id(self) -> str:
        """The round's stable name."""
        return f"{self.chat_id}/{self.round}"

    @property
    def person(self) -> str:
        """Who is asked for."""
        return self.person_id or f"{self.chat_id}/{self.asked_side}"

    @property
    def cluster(self) -> str:
        """The group of rounds that may depend on each other."""
        return self.cluster_id or self.chat_id


@dataclass(frozen=True)
class FirstRoundItem:
    """A picture made from words alone, in round 1 of a chat; `true` is the real frame, if there is one."""

    item_id: str
    caption: str
    generated: Picture
    true: Picture | None = None
    cluster_id: str | None = None


@dataclass(frozen=True)
class PromptedItem:
    """A personalised picture whose words are not those of the data set, so that there is no true one.

    Attributes:
        item_id: Stable name.
        group: How hard the words are for the face, a group of `prompts.yaml`.
        person_id: Who is asked for.
        prompt: The words.
        source_face: The face that the model was given.
        generated: What the model made.
    """

    item_id: str
    group: str
    person_id: str
    prompt: str
    source_face: Picture
    generated: Picture


@dataclass(frozen=True)
class RetentionItem:
    """A long chat: a picture of two people, then one of them again and again.

    Attributes:
        chat_id: The chat.
        first_picture: The picture of round 1, a true one.
        asked_side: Where the person asked for stands there.
        close_ups: What the model made in rounds 2, 3, ...; None where it answered in words only.
        cluster_id: Group of chats that share people, see `clusters_of`; the chat itself by default.
    """

    chat_id: str
    first_picture: Picture
    asked_side: Literal["left", "right"]
    close_ups: tuple[Picture | None, ...]
    cluster_id: str | None = None


@dataclass(frozen=True)
class ReconstructionItem:
    """A true picture and what came back from its image tokens.

    Attributes:
        item_id: Stable name.
        kind: "natural" (no people), "people" (scenes with people) or "face" (close-ups).
        original: The true picture.
        after: Its reconstruction by the detokenizer that is judged.
        before: Its reconstruction by the detokenizer before it was tuned on people, if that was kept.
        served: Its reconstruction by the detokenizer that the model serves with, if that is judged too.
        cluster_id: Person or clip; each picture is independent by default.
    """

    item_id: str
    kind: Literal["natural", "people", "face"]
    original: Picture
    after: Picture
    before: Picture | None = None
    cluster_id: str | None = None
    served: Picture | None = None


def clusters_of(shared: Sequence[Sequence[Hashable]]) -> list[str]:
    """Returns the name of each item's cluster: items that share anything, also through others, are in one.

    Args:
        shared: What is in each item and may be in another too: people, or the clip it was cut from.
    """
    groups = Groups(len(shared))
    owner: dict[Hashable, int] = {}
    for index, names in enumerate(shared):
        for name in names:
            groups.join(owner.setdefault(name, index), index)
    return [f"group-{groups.root(index)}" for index in range(len(shared))]


def choose(items: Sequence[T], maximum: int, *, seed: int, key: Callable[[T], str]) -> list[T]:
    """Returns at most `maximum` items, chosen by a hash of their key, in that order.

    The choice does not depend on the order of `items`, and hardly changes when items are added or forgotten.
    Items with equal keys (the two rounds of a chat) are chosen together; the last group is left out if it
    does not fit.
    """
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    chosen: list[T] = []
    for name in order:
        if len(chosen) + len(groups[name]) > maximum:
            break
        chosen.extend(groups[name])
    return chosen
