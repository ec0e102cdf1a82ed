"""Conversations: what was curated, described and cut out becomes chats, split by identity, in shards.

Six sets. `natural`: any picture, given back as it is. `reconstruct`: picture, portrait or close-up, given
back as it is. `inpaint`: a head cut out of a portrait and a caption, answered with that portrait. `pair`: the
head cut out of the portrait of one frame, answered with the portrait of the other frame. `rounds`: a picture of two
named people, then a close-up of each by name, in random order. `history`: chats that need more than the last turn;
only if its kinds are turned on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from visavis.data.chats.full_body import ROWS_NAME
from visavis.data.chats.history import history_chats
from visavis.data.chats.material import Folders, Material, single
from visavis.data.chats.name_rounds import name_rounds
from visavis.data.chats.single_rounds import single_rounds
from visavis.data.config import ConversationConfig
from visavis.data.curation.people import Progress
from visavis.data.funnel import funnel
from visavis.data.identities import Identities, find_identities
from visavis.data.ledger import Ledger
from visavis.data.published.origins import write_origins
from visavis.data.published.release import publish
from visavis.data.published.shards import Sample, write_shards
from visavis.data.split import SPLITS
from visavis.errors import VisavisError
from visavis.files import read_jsonl, write_json

STEP = "build_conversations"
SETS = ("natural", "reconstruct", "inpaint", "pair", "rounds", "history")


def build(
    curated: Path,
    described: Path,
    segmented: Path,
    out: Path,
    config: ConversationConfig,
    progress: Progress | None = None,
    full_body: Path | None = None,
) -> dict[str, Any]:
    """Builds the conversations and writes them as shards with an index, a card and a viewer page.

    Writes `{train,val,test}-NNNNNN.tar`, `index.parquet`, `splits.json`, `origins.jsonl`, `funnel.json`,
    `summary.json`, `ledger.jsonl`, `validation.json`, `card.md`, `viewer.html` and `dataset.json`. Equal inputs
    give equal bytes.

    Args:
        curated: Result of `curate`.
        described: Result of `describe`.
        segmented: Result of `segment`.
        out: Folder to write; what an unfinished attempt left there is replaced.
        config: Shares, threshold, wording.
        progress: Called with the number of samples done and in all.
        full_body: Result of `full_body`; needed only if rounds 2 and 3 show full-body pictures.

    Returns:
        `{"in": n, "kept": k, "dropped": {reason: n}}` over the pairs. A pair is kept if any sample is made of
        it; its ledger row says which. Reason: `people_in_two_splits`.

    Raises:
        VisavisError: If full-body pictures are wanted and `full_body` is not given.
    """
    if config.rounds_target == "full_body" and full_body is None:
        raise VisavisError(
            "conversations.rounds_target is 'full_body', but no full-body targets were made",
            fix="turn full_body.enabled on, or choose face or portrait",
        )
    folders = Folders(curated, described, segmented, full_body)
    pairs = read_jsonl(curated / "pairs.jsonl")
    pictures = read_jsonl(curated / "pictures.jsonl")
    who = find_identities(pairs, pictures, config)
    samples, ledger = _all_samples(folders, pairs, pictures, who, config)
    rows = write_shards(samples, out, config, progress)
    counts = ledger.close(out / "ledger.jsonl", len(pairs))
    steps = funnel({**folders.ledgers(), STEP: out / "ledger.jsonl"})
    write_json(out / "funnel.json", steps)
    write_json(out / "splits.json", {"people": who.by_person(), "items": who.split})
    summary = _summary(samples, pairs, who, counts)
    write_json(out / "summary.json", summary)
    write_origins(curated, segmented, who, out)
    publish(out, config, folders.ledgers() | {STEP: out / "ledger.jsonl"})
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
    bodies: dict[str, dict[str, Any]] = {}
    if config.rounds_target == "full_body" and folders.full_body is not None:
        bodies = {row["item"]: row for row in read_jsonl(folders.full_body / ROWS_NAME)}
    ledger = Ledger(STEP)
    samples: list[Sample] = []
    for pair in pairs:
        clip = pair["clip_id"]
        split = who.split[clip]
        if split is None:
            ledger.drop(clip, "people_in_two_splits", people=who.people[clip])
            continue
        items = [f"{clip}-{person}" for person in (0, 1)]
        material = Material(
            folders,
            pair,
            captions.get(clip),
            [faces.get(item) for item in items],
            [bodies.get(item) for item in items],
            who.people[clip],
            split,
            config,
        )
        made, detail = _clip_samples(material)
        samples += made
        sets = Counter(sample.set for sample in made)
        ledger.keep(clip, split=split, people=who.people[clip], sets=dict(sorted(sets.items())), **detail)
    for picture in pictures:
        split = who.split[picture["picture_id"]]
        if split is not None:
            samples.append(_natural(folders, picture, split, who, config))
    return samples, ledger


def _clip_samples(clip: Material) -> tuple[list[Sample], dict[str, str]]:
    """Returns all samples of one clip, and what its ledger row must say beside their number."""
    samples, detail = list(single_rounds(clip)), dict[str, str]()
    couple = clip.couple()
    if couple is not None:
        chats = name_rounds(couple)
        samples += chats
        if not chats:
            detail["no_rounds"] = "full_body_missing"
        samples += history_chats(couple)
    return samples, detail


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
        turns=single(config, config.prompts.copy_picture, 0, 0),
        tags={},
        images=[folders.curated / picture["file"]],
        caption="",
    )


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
