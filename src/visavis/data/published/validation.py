"""Validation: judges a data set by its written files alone, whoever wrote it and whatever happened to it since."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from visavis.data.published.balance import Balance
from visavis.data.published.dataset import DATASET_NAME, counts_of, index_columns, read_dataset, verify
from visavis.data.published.origins import ORIGINS_NAME, read_origins
from visavis.data.published.schema import schema_faults
from visavis.data.published.shards import COLUMNS, read_groups, read_index
from visavis.errors import VisavisError
from visavis.files import sha256_bytes, write_json

VALIDATION_NAME = "validation.json"
CHECKS = {
    "files": "every file is as the manifest says",
    "shards": "every shard can be read to its end",
    "index": "the index can be read and has the right columns",
    "schema": "every sample has the right fields and shows each of its pictures",
    "pictures": "every picture can be decoded and has its digest",
    "counts": "index, shards and manifest count the same",
    "rows": "every sample is as its row of the index says",
    "twice": "no sample is there twice",
    "people_in_two_splits": "nobody is in two splits",
    "clips_in_two_splits": "no clip or picture is in two splits",
    "recordings_in_two_splits": "no recording is in two splits",
    "pictures_in_two_splits": "no stored picture is in two splits",
    "pictures_of_two_items": "no stored picture comes from two clips",
    "equal_samples": "no two samples say and show the same",
}
WARNINGS = frozenset({"pictures_of_two_items", "equal_samples"})
"""What makes a data set poorer, not wrong."""

_EXAMPLES = 5
_ROW_FIELDS = ("set", "split", "clip_id", "people", "caption", "images")


@dataclass
class Check:
    """One thing that was looked at.

    Attributes:
        name: Key of `CHECKS`.
        found: How often it does not hold.
        examples: The first few places.
    """

    name: str
    found: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def level(self) -> str:
        """`warning` or `error`."""
        return "warning" if self.name in WARNINGS else "error"

    def add(self, example: str) -> None:
        """Notes a place where it does not hold."""
        self.found += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(example)


@dataclass(frozen=True)
class Report:
    """What was found, and what the data set is made of.

    Attributes:
        checks: All checks, in the order of `CHECKS`.
        figures: Counts, duplicate rates and the balance of the attributes.
    """

    checks: tuple[Check, ...]
    figures: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; warnings do not count."""
        return not self.problems

    @property
    def problems(self) -> tuple[Check, ...]:
        """The checks that found errors."""
        return tuple(check for check in self.checks if check.found and check.level == "error")

    def check(self, name: str) -> Check:
        """Returns a check by its name."""
        return next(check for check in self.checks if check.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON."""
        rows = [
            {
                "name": check.name,
                "words": CHECKS[check.name],
                "level": check.level,
                "found": check.found,
                "examples": check.examples,
            }
            for check in self.checks
        ]
        return {"passed": self.passed, "checks": rows, "figures": self.figures}

    def write(self, folder: Path) -> None:
        """Writes `validation.json`."""
        write_json(folder / VALIDATION_NAME, self.to_dict())


def validate(folder: Path) -> Report:
    """Judges a data set; a broken part of it is a finding, never the end.

    Args:
        folder: Folder with `index.parquet` and shards; nothing outside of it is read, no truth and no earlier step.

    Raises:
        VisavisError: If there is no such folder.
    """
    if not folder.is_dir():
        raise VisavisError(f"data set {folder} is not a folder", fix="give the folder of a data set")
    return _Judge(folder).report()


class _Judge:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checks = {name: Check(name) for name in CHECKS}
        self.balance = Balance()
        self.keys: Counter[str] = Counter()
        self.images = 0
        self.decodable: dict[str, bool] = {}
        self.homes: dict[str, dict[str, set[str]]] = {
            kind: defaultdict(set) for kind in ("people", "clips", "recordings", "pictures")
        }
        self.items_of: dict[str, set[str]] = defaultdict(set)
        self.contents: dict[str, str] = {}
        self.uses = 0
        self.recordings = self._recordings()

    def _recordings(self) -> dict[str, str]:
        try:
            return {row["item"]: row["recording"] for row in read_origins(self.folder) if row["recording"]}
        except (ValueError, KeyError, TypeError, OSError):
            self._found("files", f"{ORIGINS_NAME} cannot be read")
            return {}

    def report(self) -> Report:
        rows = self._index()
        for name in sorted({row["shard"] for row in rows.values()} | self._there()):
            self._shard(name, rows)
        self._counts(list(rows.values()))
        self._leaks()
        for digest, items in self.items_of.items():
            if len(items) > 1:
                self._found("pictures_of_two_items", f"{digest[:16]} of {', '.join(sorted(items))}")
        pictures = max(len(self.items_of), 1)
        figures = {
            "counts": counts_of(list(rows.values())),
            "duplicates": {
                "pictures_of_two_items": self.checks["pictures_of_two_items"].found / pictures,
                "equal_samples": self.checks["equal_samples"].found / max(self.keys.total(), 1),
                "equal_captions": self.balance.equal_captions(),
            },
            "balance": self.balance.figures(),
        }
        return Report(tuple(self.checks.values()), figures)

    def _found(self, check: str, example: str) -> None:
        self.checks[check].add(example)

    def _there(self) -> set[str]:
        return {path.name for path in self.folder.glob("*.tar")}

    def _index(self) -> dict[str, dict[str, Any]]:
        """Returns the rows by id; none if the index is of no use."""
        try:
            columns, rows = index_columns(self.folder), read_index(self.folder)
        except Exception as error:  # Arrow has many ways to say that a file is broken
            self._found("index", str(error).splitlines()[0])
            return {}
        for name, kind in COLUMNS.items():
            if columns.get(name) != kind:
                self._found("index", f"column {name} is {columns.get(name, 'missing')}, not {kind}")
        if self.checks["index"].found:
            return {}
        if any(None in row.values() or Path(row["shard"]).name != row["shard"] for row in rows):
            self._found("index", "a row has an empty field, or names a shard outside of the folder")
            return {}
        for row_id, count in Counter(row["id"] for row in rows).items():
            if count > 1:
                self._found("twice", f"{row_id}: {count} rows of the index")
        return {row["id"]: row for row in rows}

    def _shard(self, name: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
        if not (self.folder / name).is_file():
            self._found("shards", f"{name} is missing")
            return
        try:
            for key, members in read_groups(self.folder / name):
                self.keys[key] += 1
                self.images += sum(member.endswith("png") for member in members)
                self._sample(name, key, members, rows.get(key))
        except (OSError, EOFError, ValueError, tarfile.TarError) as error:
            self._found("shards", f"{name}: {type(error).__name__}: {error}")

    def _sample(
        self, shard: str, key: str, members: Mapping[str, bytes], row: Mapping[str, Any] | None
    ) -> None:
        place = f"{shard}: {key}"
        try:
            record = json.loads(members["json"])
        except (KeyError, ValueError) as error:
            self._found("schema", f"{place}: {type(error).__name__} in its JSON")
            return
        faults = list(schema_faults(record, key))
        for fault in faults:
            self._found("schema", f"{place}: {fault}")
        if faults:
            return
        self._pictures(place, record, members)
        if row is not None:
            different = [name for name in _ROW_FIELDS if row[name] != record[name]]
            different += ["shard"] if row["shard"] != shard else []
            different += ["n_images"] if row["n_images"] != len(record["images"]) else []
            if different:
                self._found("rows", f"{place}: {', '.join(different)}")
        if record["split"] != shard.partition("-")[0]:
            self._found("rows", f"{place}: split is {record['split']}")
        self._note(key, record)

    def _pictures(self, place: str, record: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
        for number, digest in enumerate(record["images"]):
            data = members.get(f"{number}.png")
            if data is None:
                self._found("pictures", f"{place}: {number}.png is missing")
                continue
            found = sha256_bytes(data)
            if found not in self.decodable:
                self.decodable[found] = _decodes(data)
            if not self.decodable[found]:
                self._found("pictures", f"{place}: {number}.png cannot be decoded")
            elif found != digest:
                self._found("pictures", f"{place}: {number}.png has another digest")
        if extra := sorted(set(members) - {"json", *(f"{n}.png" for n in range(len(record["images"])))}):
            self._found("schema", f"{place}: {', '.join(extra)} is not in its JSON")

    def _note(self, key: str, record: Mapping[str, Any]) -> None:
        """Remembers what can only be judged when all samples are known."""
        split, item = record["split"], record["clip_id"]
        self.homes["clips"][item].add(split)
        if item in self.recordings:
            self.homes["recordings"][self.recordings[item]].add(split)
        for person in record["people"]:
            self.homes["people"][person].add(split)
        for digest in record["images"]:
            self.homes["pictures"][digest].add(split)
            self.items_of[digest].add(item)
        content = sha256_bytes(json.dumps([record["turns"], record["images"]], sort_keys=True).encode())
        if (other := self.contents.setdefault(content, key)) != key:
            self._found("equal_samples", f"{other} and {key}")
        self.balance.add(record)

    def _leaks(self) -> None:
        for kind, homes in self.homes.items():
            for name, splits in homes.items():
                if len(splits) > 1:
                    self._found(f"{kind}_in_two_splits", f"{name} in {', '.join(sorted(splits))}")

    def _counts(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for key, count in self.keys.items():
            if count > 1:
                self._found("twice", f"{key}: {count} times in the shards")
        indexed = {row["id"] for row in rows}
        for key in sorted(indexed - set(self.keys)):
            self._found("counts", f"{key} is in the index, but in no shard")
        for key in sorted(set(self.keys) - indexed):
            self._found("counts", f"{key} is in a shard, but not in the index")
        try:
            damages, said = verify(self.folder), read_dataset(self.folder).get("counts", {})
        except VisavisError:
            self._found("files", f"{DATASET_NAME} is missing or is none")
            return
        for damage in damages:
            # This report itself, the card and the page are written after the data they speak of.
            if damage.what != "unlisted" or damage.file.endswith((".tar", ".parquet")):
                self._found("files", str(damage))
        found = {"samples": self.keys.total(), "images": self.images, "shards": len(self._there())}
        for name, count in found.items():
            if said.get(name) != count:
                self._found("counts", f"{DATASET_NAME} says {said.get(name)} {name}, the shards hold {count}")


def _decodes(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception:  # decoders fail in many ways on damaged bytes
        return False
    return True
