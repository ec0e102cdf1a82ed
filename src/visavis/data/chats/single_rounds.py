"""The sets of one round for the stages of training (paper, section 3.2): `reconstruct`, `inpaint`, `pair`.

The face that `inpaint` and `pair` give is the portrait's own cutout: it lies where the portrait of its frame shows it.
A model of images regresses, so of a face whose place is left open it paints the mean over all places: a smear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visavis.data.chats.material import Material, person_words, placed, single
from visavis.data.config import FRAMES
from visavis.data.published.shards import Sample


def single_rounds(clip: Material) -> Iterator[Sample]:
    """Yields the samples of one round of a clip; which ones depends on what is known of it."""
    for kind in clip.config.reconstruct:
        yield from _reconstruct(clip, kind)
    for person, face in enumerate(clip.faces):
        if face is not None and clip.caption is not None:
            for frame in FRAMES:
                yield _inpaint(clip, clip.caption, person, face, frame)
            yield _other_frame(clip, clip.caption, person, face, "first", "last")
            yield _other_frame(clip, clip.caption, person, face, "last", "first")


def _reconstruct(clip: Material, kind: str) -> Iterator[Sample]:
    rng = clip.rng(f"reconstruct-{kind}")
    if kind == "picture":
        text = clip.caption["caption"] if clip.caption else ""
        yield _copy(clip, kind, text, clip.scene(), clip.people, {"kind": kind})
        return
    for person, face in enumerate(clip.faces):
        if face is not None:
            frame = FRAMES[int(rng.integers(2))]
            text = _caption_of(clip, clip.caption, person, kind == "face", rng) if clip.caption else ""
            image = clip.folders.segmented / face[frame][kind]
            tags = {"kind": kind, "person": person, "frame": frame}
            yield _copy(clip, f"{kind}-{person}", text, image, [clip.people[person]], tags)


def _inpaint(
    clip: Material, caption: Mapping[str, Any], person: int, face: Mapping[str, Any], frame: str
) -> Sample:
    text = _caption_of(clip, caption, person, False, clip.rng(f"inpaint-{person}-{frame}"))
    tags = {"person": person, "from": frame, "to": frame, "described": True}
    return _change(clip, "inpaint", f"{person}-{frame}", text, face, tags)


def _other_frame(
    clip: Material,
    caption: Mapping[str, Any],
    person: int,
    face: Mapping[str, Any],
    source: str,
    target: str,
) -> Sample:
    rng = clip.rng(f"pair-{person}-{source}")
    described = bool(rng.random() >= clip.config.undescribed)
    nobody = placed("a person", caption["place"])
    text = _caption_of(clip, caption, person, False, rng) if described else nobody
    tags = {"person": person, "from": source, "to": target, "described": described}
    return _change(clip, "pair", f"{person}-{source}", text, face, tags)


def _copy(
    clip: Material, variant: str, text: str, image: Path, people: list[str], tags: dict[str, Any]
) -> Sample:
    prompts = clip.config.prompts
    words = prompts.picture.replace("{caption}", text) if text else prompts.copy_picture
    return clip.sample("reconstruct", variant, text, single(clip.config, words, 0, 0), [image], people, tags)


def _change(
    clip: Material, name: str, variant: str, text: str, face: Mapping[str, Any], tags: dict[str, Any]
) -> Sample:
    """Returns a sample from the face of frame `tags["from"]` to the portrait of frame `tags["to"]`."""
    images = [
        clip.folders.segmented / face[tags["from"]]["cutout"],
        clip.folders.segmented / face[tags["to"]]["portrait"],
    ]
    turns = single(clip.config, clip.config.prompts.picture.replace("{caption}", text), 0, 1)
    return clip.sample(name, variant, text, turns, images, [clip.people[tags["person"]]], tags)


def _caption_of(
    clip: Material, caption: Mapping[str, Any], person: int, close_up: bool, rng: np.random.Generator
) -> str:
    """Returns words such as "a person with long red hair and a blue cap, on the beach"."""
    words = person_words(caption["phrases"][person], clip.config.max_looks, rng)
    return f"a close-up photo of {words}" if close_up else placed(words, caption["place"])
