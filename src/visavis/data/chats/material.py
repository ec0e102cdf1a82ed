"""What is known of one clip, and how a sample is put together of it; all chance comes from the clip's id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visavis.data.config import FRAMES, ConversationConfig
from visavis.data.describing.naming import clip_rng
from visavis.data.published.shards import Sample, Turn

_SIDES = ("left", "right")


@dataclass(frozen=True)
class Folders:
    """Results of the steps before; `full_body` is there only if full-body targets were made."""

    curated: Path
    described: Path
    segmented: Path
    full_body: Path | None = None

    def ledgers(self) -> dict[str, Path]:
        """Returns the ledgers of the clips in the order of the funnel."""
        return {
            "curate_clips": self.curated / "ledger.jsonl",
            "describe_clips": self.described / "ledger.jsonl",
            "segment_faces": self.segmented / "ledger.jsonl",
        }


@dataclass(frozen=True)
class Material:
    """What is known of one clip.

    Attributes:
        folders: Where the pictures lie.
        pair: Row of `pairs.jsonl`.
        caption: Row of `captions.jsonl`, if it was described.
        faces: Row of `faces.jsonl` of the left and the right person, where they were cut out.
        bodies: Row of `full_body.jsonl` of both, where a target was kept.
        people: Names of the people across clips, from left to right.
        split: train, val or test.
        config: Shares, wording, seed.
    """

    folders: Folders
    pair: Mapping[str, Any]
    caption: Mapping[str, Any] | None
    faces: Sequence[Mapping[str, Any] | None]
    bodies: Sequence[Mapping[str, Any] | None]
    people: list[str]
    split: str
    config: ConversationConfig

    @property
    def clip(self) -> str:
        """The clip's id."""
        return str(self.pair["clip_id"])

    def scene(self, frame: str = FRAMES[0]) -> Path:
        """Returns a whole frame (`first`, `last`)."""
        return self.folders.curated / self.pair[frame]

    def rng(self, purpose: str) -> np.random.Generator:
        """Returns chance of the clip's own for one purpose."""
        return clip_rng(self.clip, purpose, self.config.seed)

    def sample(
        self,
        name: str,
        variant: str,
        text: str,
        turns: list[Turn],
        images: list[Path],
        people: list[str],
        tags: dict[str, Any],
    ) -> Sample:
        """Puts a sample of set `name` together; `variant` tells it from the clip's others of that set."""
        return Sample(
            id="-".join(part for part in (name, self.clip[:16], variant) if part),
            set=name,
            split=self.split,
            clip_id=self.clip,
            people=people,
            turns=turns,
            tags=tags,
            images=images,
            caption=text,
        )

    def couple(self) -> Couple | None:
        """Returns what a chat about both people needs; None if the caption or a face is missing."""
        left, right = self.faces
        if self.caption is None or left is None or right is None:
            return None
        return Couple(self, self.caption, (left, right))


@dataclass(frozen=True)
class Couple:
    """A clip that has a caption with both names, and both of whose faces are cut out."""

    material: Material
    caption: Mapping[str, Any]
    faces: tuple[Mapping[str, Any], Mapping[str, Any]]

    def shot(self, person: int, frame: str, target: str) -> Path:
        """Returns the close-up (target `face`) or the portrait of a person in a frame (`first`, `last`)."""
        return self.material.folders.segmented / str(self.faces[person][frame][target])

    def told(self, person: int) -> dict[str, Any]:
        """Returns what the caption tells of a person: name, side, and by what they can be told."""
        mentions = self.caption["mentions"]
        return {
            "name": self.caption["names"][person],
            "side": _SIDES[person],
            "described": mentions[person]["looks"],
            "side_told": mentions[person]["side"],
            "other_described": mentions[1 - person]["looks"],
        }

    def order(self) -> dict[str, Any]:
        """Returns how the caption tells the two apart, and whether it names the left person first."""
        return {"order_left_first": self.caption["order"][0] == 0, "style": self.caption["style"]}


def person_words(phrases: Sequence[str], most: int, rng: np.random.Generator) -> str:
    """Returns words such as "a person with long red hair and a blue cap", of 1 to `most` phrases."""
    count = min(len(phrases), int(rng.integers(1, most + 1)))
    chosen = [phrases[int(index)] for index in sorted(rng.choice(len(phrases), count, replace=False))]
    return f"a person with {' and '.join(chosen)}"


def placed(words: str, place: str | None) -> str:
    """Returns the words with the place behind them, if one is known."""
    return f"{words}, {place}" if place else words


def single(config: ConversationConfig, words: str, source: int, target: int) -> list[Turn]:
    """Returns one round: words and picture `source` in, picture `target` out."""
    return [user_turn(words, source), assistant_turn(config.prompts.reply, target)]


def user_turn(*content: str | int) -> Turn:
    """Returns a user turn; strings become text, integers pictures."""
    return {"role": "user", "content": [_part(value) for value in content]}


def assistant_turn(*content: str | int) -> Turn:
    """Returns an assistant turn; strings become text, integers pictures."""
    return {"role": "assistant", "content": [_part(value) for value in content]}


def _part(value: str | int) -> dict[str, Any]:
    return {"type": "text", "text": value} if isinstance(value, str) else {"type": "image", "image": value}
