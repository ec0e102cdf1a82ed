"""Forgetting: which samples hold a clip or a person, and the same data set without them.

What is asked for can be the id of a clip or picture (or a unique beginning of it), its source, or a person. A
person means every clip and picture with that person in it, a source all that was cut from it. The new data set
remembers the ids of what was taken out, so that curation can leave them out for good, and of the request itself
only a hash.
"""

from __future__ import annotations

import difflib
import shutil
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from visavis.data.config import ConversationConfig
from visavis.data.published.dataset import DATASET_NAME, check_place, read_dataset, verify
from visavis.data.published.origins import ORIGINS_NAME, read_origins
from visavis.data.published.release import publish
from visavis.data.published.restate import restate
from visavis.data.published.shards import read_index, write_index
from visavis.errors import VisavisError
from visavis.files import atomic_dir, read_json, sha256_bytes, write_json, write_jsonl

FORGOTTEN_NAME = "forgotten.json"
_LEAST_PREFIX = 6
_SHOWN_ID = 16


@dataclass(frozen=True)
class Target:
    """What is to be forgotten.

    Attributes:
        name: Id of the item, the person, or the source of several items.
        kind: `clip`, `picture`, `person`, `source`, or `forgotten` if an earlier request took it out.
        items: Ids of the clips and pictures to take out, or that were.
    """

    name: str
    kind: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Contained:
    """Where a data set holds a target.

    Attributes:
        shards: Shard -> samples of it in there.
        splits: Split -> samples.
        sets: Set -> samples.
    """

    shards: dict[str, int]
    splits: dict[str, int]
    sets: dict[str, int]


def find_target(data: Path, asked: str) -> Target:
    """Finds out what is meant.

    Args:
        data: Data set.
        asked: Id of a clip or picture, or at least 6 letters of its beginning; a source; or a person.

    Raises:
        VisavisError: If the data set knows nothing of the kind, or more than one item is meant.
    """
    asked = asked.strip()
    people = _people(data)
    if asked in people:
        return Target(asked, "person", tuple(people[asked]))
    kinds = _kinds(data)
    origins = read_origins(data)
    items = sorted(row["item"] for row in origins if asked in _sources(row))
    if len(items) > 1:  # such as the scenes of one video
        return Target(asked, "source", tuple(items))
    items = items or _beginning_with(asked, kinds)
    if not items and (gone := _gone(asked, forgotten(data))):
        return gone
    if len(items) > 1:
        raise VisavisError(
            f"{asked!r} may mean {len(items)} items: {', '.join(_short(item) for item in items)}",
            fix="give more of the id",
        )
    if not items:
        sources = [str(row["source_uri"]) for row in origins]
        raise _unknown(data, asked, [*people, *kinds, *sources])
    return Target(items[0], kinds[items[0]], (items[0],))


def _sources(row: Mapping[str, Any]) -> set[str]:
    """Returns what a source is asked for by: its address, the film of a scene, the recording."""
    uri = str(row["source_uri"])
    return {uri, uri.rpartition("#t=")[0] or uri, str(row["recording"] or uri)}


def _people(data: Path) -> dict[str, list[str]]:
    path = data / "splits.json"
    if path.is_file():
        return dict(read_json(path)["people"])
    people: dict[str, set[str]] = {}
    for row in read_index(data):
        for person in row["people"]:
            people.setdefault(person, set()).add(row["clip_id"])
    return {person: sorted(items) for person, items in people.items()}


def _kinds(data: Path) -> dict[str, str]:
    """Returns item -> clip or picture."""
    kinds = {row["clip_id"]: "picture" if row["set"] == "natural" else "clip" for row in read_index(data)}
    return kinds | {row["item"]: row["kind"] for row in read_origins(data)}


def _beginning_with(asked: str, items: Mapping[str, str]) -> list[str]:
    if asked in items:
        return [asked]
    return sorted(item for item in items if item.startswith(asked)) if len(asked) >= _LEAST_PREFIX else []


def forgotten(data: Path) -> dict[str, list[str]]:
    """Returns what earlier requests took out: hash of the request -> ids of the items."""
    path = data / FORGOTTEN_NAME
    return dict(read_json(path)["requests"]) if path.is_file() else {}


def _gone(asked: str, earlier: Mapping[str, list[str]]) -> Target | None:
    if by_request := earlier.get(_hashed(asked)):
        return Target(asked, "forgotten", tuple(by_request))
    items = _beginning_with(asked, {item: "" for gone in earlier.values() for item in gone})
    return Target(items[0], "forgotten", tuple(items)) if len(items) == 1 else None


def _hashed(asked: str) -> str:
    return sha256_bytes(asked.encode())


def _unknown(data: Path, asked: str, known: Sequence[str]) -> VisavisError:
    # Ids are long: what was typed is compared with as much of them.
    shorter = {one if len(asked) > _SHOWN_ID else one[: max(len(asked), _LEAST_PREFIX)]: one for one in known}
    near = difflib.get_close_matches(asked, shorter, n=1, cutoff=0.4)
    nearest = f"; the nearest is {_short(shorter[near[0]])}" if near else ""
    return VisavisError(
        f"{asked!r} is no clip, picture, source or person of {data}{nearest}",
        fix=f"give an id (or its first {_LEAST_PREFIX} letters), source or person as listed in {data / ORIGINS_NAME}",
    )


def _short(name: str) -> str:
    return f"{name[:_SHOWN_ID]}…" if len(name) == 64 else name


def contained(data: Path, items: Sequence[str]) -> Contained:
    """Returns where a data set holds samples of some items."""
    gone = set(items)
    rows = [row for row in read_index(data) if row["clip_id"] in gone]
    shards, splits, sets = (
        dict(sorted(Counter(r[k] for r in rows).items())) for k in ("shard", "split", "set")
    )
    return Contained(shards, splits, sets)


def write_without(data: Path, out: Path, asked: str, target: Target) -> str:
    """Writes a data set without a target; all other samples keep their bytes, and their order.

    Args:
        data: Data set; stays as it is.
        out: Folder to write, atomically; an earlier data set there is replaced.
        asked: The words of the request.
        target: What they mean.

    Returns:
        The digest of the new data set.

    Raises:
        VisavisError: If `data` is damaged or not of this version, or `out` is no place for a data set.
    """
    config = _config(data)
    _check_place(data, out)
    # A note that somebody laid beside the data is no damage.
    if damages := [damage for damage in verify(data) if damage.what != "unlisted"]:
        raise VisavisError(
            f"{data} is damaged: {'; '.join(map(str, damages[:3]))}",
            fix="build it again, or take it from where it was copied from",
        )
    gone = set(target.items)
    with atomic_dir(out) as work:
        write_index(work, _shards(data, work, gone))
        splits = read_json(data / "splits.json")
        people = {
            name: [item for item in items if item not in gone] for name, items in splits["people"].items()
        }
        left = {item: split for item, split in splits["items"].items() if item not in gone}
        write_json(
            work / "splits.json",
            {"people": {n: items for n, items in people.items() if items}, "items": left},
        )
        write_jsonl(work / ORIGINS_NAME, [row for row in read_origins(data) if row["item"] not in gone])
        requests = forgotten(data) | {_hashed(asked.strip()): sorted(gone)}
        items = sorted({item for taken in requests.values() for item in taken})
        write_json(work / FORGOTTEN_NAME, {"items": items, "requests": requests})
        restate(data, work, gone)
        steps = read_json(work / "funnel.json")
        publish(work, config, {steps[-1]["step"]: work / "ledger.jsonl"} if steps else {})
        return str(read_dataset(work)["digest"])


def _config(data: Path) -> ConversationConfig:
    try:
        return ConversationConfig.model_validate(read_dataset(data).get("config"))
    except ValidationError as error:
        raise VisavisError(
            f"{data / DATASET_NAME}: the settings are not those of this version: {error.errors()[0]['msg']}",
            fix="build the data set again with this version",
        ) from None


def _check_place(data: Path, out: Path) -> None:
    if out.resolve() == data.resolve() or data.resolve() in out.resolve().parents:
        raise VisavisError(
            f"out is {out}, which is the data set itself or inside of it",
            fix="name another folder, and remove the old data set when nothing needs it any more",
        )
    check_place(out)


def _shards(data: Path, work: Path, items: Set[str]) -> list[dict[str, Any]]:
    """Writes what is left of each shard, numbered without gaps; returns the rows with the new names."""
    before = read_index(data)
    rows = [row for row in before if row["clip_id"] not in items]
    gone = {row["id"] for row in before if row["clip_id"] in items}
    touched = {row["shard"] for row in before if row["id"] in gone}
    names: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for name in sorted({row["shard"] for row in rows}):
        split = name.partition("-")[0]
        names[name] = f"{split}-{numbers[split]:06d}.tar"
        numbers[split] += 1
        if name in touched:
            _copy_members(data / name, work / names[name], gone)
        else:
            shutil.copyfile(data / name, work / names[name])
    return [{**row, "shard": names[row["shard"]]} for row in rows]


def _copy_members(source: Path, target: Path, gone: set[str]) -> None:
    with tarfile.open(source, "r|") as old, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as new:
        for member in old:
            if member.name.partition(".")[0] not in gone:
                new.addfile(member, old.extractfile(member))
