"""Conversations: what was curated, described and cut out becomes chats, split by identity, in shards.

Five sets. `natural`: any picture, given back as it is. `reconstruct`: picture, portrait or close-up, given
back as it is. `inpaint`: a masked face and a caption, answered with the portrait it was cut from. `pair`: the
face of one frame, answered with the portrait of the other frame. `rounds`: a picture of two named people,
then a close-up of each by name, in random order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from visavis.data.card import write_card
from visavis.data.config import ConversationConfig
from visavis.data.funnel import funnel
from visavis.data.identities import Identities, find_identities
from visavis.data.ledger import Ledger
from visavis.data.naming import clip_rng
from visavis.data.people import Progress
from visavis.data.shards import Sample, Turn, write_shards
from visavis.data.split import SPLITS
from visavis.data.viewer import write_viewer
from visavis.files import read_jsonl, write_atomic, write_json

STEP = "build_conversations"
SETS = ("natural", "reconstruct", "inpaint", "pair", "rounds")
_SIDES = ("left", "right")
_FRAMES = ("first", "last")


@dataclass(frozen=True)
class Folders:
    """Results of the steps before."""

    curated: Path
    described: Path
    segmented: Path

    def ledgers(self) -> dict[str, Path]:
        """Returns the ledgers in the order of the funnel."""
        return {
            "curate_clips": self.curated / "ledger.jsonl",
            "describe_clips": self.described / "ledger.jsonl",
            "segment_faces": self.segmented / "ledger.jsonl",
        }


def build(
    curated: Path,
    described: Path,
    segmented: Path,
    out: Path,
    config: ConversationConfig,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Builds the conversations and writes them as shards with an index, a card and a viewer page.

    Writes `{train,val,test}-NNNNNN.tar`, `index.parquet`, `splits.json`, `funnel.json`, `card.md`,
    `viewer.html`, `summary.json` and `ledger.jsonl`. Equal inputs give equal bytes.

    Args:
        curated: Result of `curate`.
        described: Result of `describe`.
        segmented: Result of `segment`.
        out: Folder to write; what an unfinished attempt left there is replaced.
        config: Shares, threshold, wording.
        progress: Called with the number of samples done and in all.

    Returns:
        `{"in": n, "kept": k, "dropped": {reason: n}}` over the pairs. A pair is kept if any sample is made of
        it; its ledger row says which. Reason: `people_in_two_splits`.
    """
    folders = Folders(curated, described, segmented)
    pairs = read_jsonl(curated / "pairs.jsonl")
    pictures = read_jsonl(curated / "pictures.jsonl")
    who = find_identities(pairs, pictures, config)
    samples, ledger = _all_samples(folders, pairs, pictures, who, config)
    rows = write_shards(samples, out, config, progress)
    if pairs:
        counts = ledger.close(out / "ledger.jsonl", len(pairs))
    else:
        write_atomic(out / "ledger.jsonl", "")
        counts = ledger.counts()
    steps = funnel({**folders.ledgers(), STEP: out / "ledger.jsonl"})
    write_json(out / "funnel.json", steps)
    write_json(out / "splits.json", {"people": who.by_person(), "items": who.split})
    summary = _summary(samples, pairs, who, counts)
    write_json(out / "summary.json", summary)
    write_card(out / "card.md", config, summary, steps, _licences(pairs, pictures))
    write_viewer(
        out / "viewer.html", config, summary, steps, samples, folders.ledgers() | {STEP: out / "ledger.jsonl"}
    )
    assert len(rows) == len(samples)
    return counts


def _all_samples(
    folders: Folders,
    pairs: Sequence[dict[str, Any]],
    pictures: Sequence[dict[str, Any]],
    who: Identities,
    config: ConversationConfig,
) -> tuple[list[Sample], Ledger]:
    captions = {row["clip_id"]: row for row in read_jsonl(folders.described / "captions.jsonl")}
    faces = {row["item"]: row for row in read_jsonl(folders.segmented / "faces.jsonl")}
    ledger = Ledger(STEP)
    samples: list[Sample] = []
    for pair in pairs:
        clip = pair["clip_id"]
        split = who.split[clip]
        if split is None:
            ledger.drop(clip, "people_in_two_splits", people=who.people[clip])
            continue
        both = [faces.get(f"{clip}-{i}") for i in (0, 1)]
        made = list(_clip_samples(folders, pair, captions.get(clip), both, who, config))
        samples += made
        sets = Counter(sample.set for sample in made)
        ledger.keep(clip, split=split, people=who.people[clip], sets=dict(sorted(sets.items())))
    for picture in pictures:
        split = who.split[picture["picture_id"]]
        if split is not None:
            samples.append(_natural(folders, picture, split, who, config))
    return samples, ledger


def _natural(
    folders: Folders, picture: dict[str, Any], split: str, who: Identities, config: ConversationConfig
) -> Sample:
    item = picture["picture_id"]
    return Sample(
        id=f"natural-{item[:16]}",
        set="natural",
        split=split,
        clip_id=item,
        people=who.people[item],
        turns=_single(config, config.prompts.copy_picture, 0, 0),
        tags={},
        images=[folders.curated / picture["file"]],
        caption="",
    )


def _clip_samples(
    folders: Folders,
    pair: dict[str, Any],
    caption: dict[str, Any] | None,
    faces: Sequence[dict[str, Any] | None],
    who: Identities,
    config: ConversationConfig,
) -> Iterator[Sample]:
    """Yields all samples of one clip; which ones depends on what is known of it."""
    make = _Maker(folders, pair, caption, faces, who, config)
    for kind in config.reconstruct:
        yield from make.reconstruct(kind)
    for person, face in enumerate(faces):
        if face is not None and caption is not None:
            yield make.inpaint(person, face, caption)
            yield make.other_frame(person, face, caption, "first", "last")
            yield make.other_frame(person, face, caption, "last", "first")
    left, right = faces
    if caption is not None and left is not None and right is not None:
        yield make.rounds(caption, (left, right))


class _Maker:
    """Makes the samples of one clip; all chance comes from the clip's id."""

    def __init__(
        self,
        folders: Folders,
        pair: dict[str, Any],
        caption: dict[str, Any] | None,
        faces: Sequence[dict[str, Any] | None],
        who: Identities,
        config: ConversationConfig,
    ) -> None:
        self.folders, self.pair, self.caption, self.faces, self.config = folders, pair, caption, faces, config
        self.clip = pair["clip_id"]
        self.people = who.people[self.clip]
        self.split = str(who.split[self.clip])

    def reconstruct(self, kind: str) -> Iterator[Sample]:
        rng = self._rng(f"reconstruct-{kind}")
        if kind == "picture":
            text = self.caption["caption"] if self.caption else ""
            image = self.folders.curated / self.pair["first"]
            yield self._copy(kind, text, image, self.people, {"kind": kind})
            return
        for person, face in enumerate(self.faces):
            if face is not None:
                frame = _FRAMES[int(rng.integers(2))]
                text = self._person_caption(person, kind == "face", rng) if self.caption else ""
                image = self.folders.segmented / face[frame][kind]
                tags = {"kind": kind, "person": person, "frame": frame}
                yield self._copy(f"{kind}-{person}", text, image, [self.people[person]], tags)

    def inpaint(self, person: int, face: dict[str, Any], caption: dict[str, Any]) -> Sample:
        text = self._person_caption(person, False, self._rng(f"inpaint-{person}"))
        tags = {"person": person, "from": "first", "to": "first", "described": True}
        return self._change("inpaint", str(person), text, face, person, "first", "first", tags)

    def other_frame(
        self, person: int, face: dict[str, Any], caption: dict[str, Any], source: str, target: str
    ) -> Sample:
        rng = self._rng(f"pair-{person}-{source}")
        described = bool(rng.random() >= self.config.undescribed)
        text = self._person_caption(person, False, rng) if described else self._place("a person")
        tags = {"person": person, "from": source, "to": target, "described": described}
        return self._change("pair", f"{person}-{source}", text, face, person, source, target, tags)

    def rounds(self, caption: dict[str, Any], faces: tuple[dict[str, Any], dict[str, Any]]) -> Sample:
        prompts, target = self.config.prompts, self.config.rounds_target
        asked = [0, 1] if self._rng("rounds").random() < 0.5 else [1, 0]
        wording = prompts.close_up if target == "face" else prompts.photo
        turns = [
            _user(prompts.picture.replace("{caption}", caption["caption"])),
            _assistant(prompts.reply, 0),
        ]
        for number, person in enumerate(asked, 1):
            turns.append(_user(wording.replace("{name}", caption["names"][person])))
            turns.append(_assistant(prompts.reply, number))
        mentions = caption["mentions"]
        tags = {
            "asked": asked,
            "asked_names": [caption["names"][person] for person in asked],
            "asked_side": [_SIDES[person] for person in asked],
            "described": [mentions[person]["looks"] for person in asked],
            "side_told": [mentions[person]["side"] for person in asked],
            "other_described": [mentions[1 - person]["looks"] for person in asked],
            "order_left_first": caption["order"][0] == 0,
            "style": caption["style"],
            "target": target,
        }
        images = [self.folders.curated / self.pair["first"]]
        images += [self.folders.segmented / faces[person]["last"][target] for person in asked]
        return self._sample("rounds", "", caption["caption"], turns, images, self.people, tags)

    def _copy(self, variant: str, text: str, image: Path, people: list[str], tags: dict[str, Any]) -> Sample:
        prompts = self.config.prompts
        words = prompts.picture.replace("{caption}", text) if text else prompts.copy_picture
        return self._sample(
            "reconstruct", variant, text, _single(self.config, words, 0, 0), [image], people, tags
        )

    def _change(
        self,
        name: str,
        variant: str,
        text: str,
        face: dict[str, Any],
        person: int,
        source: str,
        target: str,
        tags: dict[str, Any],
    ) -> Sample:
        words = self.config.prompts.picture.replace("{caption}", text)
        images = [
            self.folders.segmented / face[source]["face"],
            self.folders.segmented / face[target]["portrait"],
        ]
        turns = _single(self.config, words, 0, 1)
        return self._sample(name, variant, text, turns, images, [self.people[person]], tags)

    def _sample(
        self,
        name: str,
        variant: str,
        text: str,
        turns: list[Turn],
        images: list[Path],
        people: list[str],
        tags: dict[str, Any],
    ) -> Sample:
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

    def _person_caption(self, person: int, close_up: bool, rng: np.random.Generator) -> str:
        """Returns words such as "a person with long red hair and a blue cap, on the beach"."""
        assert self.caption is not None
        phrases = self.caption["phrases"][person]
        count = min(len(phrases), int(rng.integers(1, self.config.max_looks + 1)))
        chosen = [phrases[int(index)] for index in sorted(rng.choice(len(phrases), count, replace=False))]
        words = f"a person with {' and '.join(chosen)}"
        return f"a close-up photo of {words}" if close_up else self._place(words)

    def _place(self, words: str) -> str:
        place = self.caption["place"] if self.caption else None
        return f"{words}, {place}" if place else words

    def _rng(self, purpose: str) -> np.random.Generator:
        return clip_rng(self.clip, purpose, self.config.seed)


def _single(config: ConversationConfig, words: str, source: int, target: int) -> list[Turn]:
    return [_user(words, source), _assistant(config.prompts.reply, target)]


def _user(*content: str | int) -> Turn:
    return {"role": "user", "content": [_part(value) for value in content]}


def _assistant(*content: str | int) -> Turn:
    return {"role": "assistant", "content": [_part(value) for value in content]}


def _part(value: str | int) -> dict[str, Any]:
    return {"type": "text", "text": value} if isinstance(value, str) else {"type": "image", "image": value}


def _summary(
    samples: Sequence[Sample], pairs: Sequence[dict[str, Any]], who: Identities, counts: dict[str, Any]
) -> dict[str, Any]:
    sets = Counter((sample.set, sample.split) for sample in samples)
    clips = Counter(str(who.split[pair["clip_id"]]) for pair in pairs)
    people: dict[str, set[str]] = {split: set() for split in SPLITS}
    for sample in samples:
        people[sample.split].update(sample.people)
    rounds = [sample for sample in samples if sample.set == "rounds"]
    return {
        "counts": counts,
        "samples": len(samples),
        "sets": {name: {split: sets[name, split] for split in SPLITS} for name in SETS},
        "clips": {split: clips[split] for split in SPLITS},
        "people": {split: len(people[split]) for split in SPLITS},
        "people_in_two_splits": sum(len(people[a] & people[b]) for a, b in combinations(SPLITS, 2)),
        "same_person": who.threshold,
        "closest_across_splits": who.closest,
        "rounds": {
            "styles": dict(sorted(Counter(sample.tags["style"] for sample in rounds).items())),
            "left_first": sum(sample.tags["order_left_first"] for sample in rounds),
            "left_asked_first": sum(sample.tags["asked"][0] == 0 for sample in rounds),
        },
    }


def _licences(
    pairs: Sequence[dict[str, Any]], pictures: Sequence[dict[str, Any]]
) -> dict[str, dict[str, int]]:
    return {
        "clips": dict(sorted(Counter(pair["licence"] or "not stated" for pair in pairs).items())),
        "pictures": dict(sorted(Counter(row["licence"] or "not stated" for row in pictures).items())),
    }
