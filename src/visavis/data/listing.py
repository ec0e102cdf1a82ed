"""What there is to curate, and its division into parts that are worked on side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from visavis.data.sources import Source, list_clips, list_pictures
from visavis.files import read_jsonl, sha256_bytes, sha256_file, write_jsonl


@dataclass(frozen=True)
class Listing:
    """Clips and natural pictures in the order of their source."""

    clips: Sequence[Source]
    pictures: Sequence[Source]

    def __len__(self) -> int:
        return len(self.clips) + len(self.pictures)

    def parts(self, size: int) -> list[Listing]:
        """Divides the items into parts of at most `size`; all of them in order are this listing again.

        An empty listing has one empty part.
        """
        items = [*self.clips, *self.pictures]
        bounds = range(0, len(items), size) or range(1)
        count = len(self.clips)
        return [
            Listing(
                self.clips[start : start + size],
                self.pictures[max(start - count, 0) : max(start + size - count, 0)],
            )
            for start in bounds
        ]

    def digest(self) -> str:
        """Returns a hash over what is listed and the bytes of the files: equal digests mean equal work."""
        lines = [json.dumps([_row(item), _bytes_of(item)], sort_keys=True) for item in self._all()]
        return sha256_bytes("\n".join([str(len(self.clips)), *lines]).encode("utf-8", "surrogateescape"))

    def save(self, path: Path) -> None:
        """Writes the listing as JSON lines, atomically."""
        kinds = ["clip"] * len(self.clips) + ["picture"] * len(self.pictures)
        write_jsonl(
            path, ({"kind": kind, **_row(item)} for kind, item in zip(kinds, self._all(), strict=True))
        )

    @classmethod
    def load(cls, path: Path) -> Listing:
        """Reads what `save` wrote."""
        found: dict[str, list[Source]] = {"clip": [], "picture": []}
        for row in read_jsonl(path):
            found[row.pop("kind")].append(_source(row))
        return cls(found["clip"], found["picture"])

    def _all(self) -> list[Source]:
        return [*self.clips, *self.pictures]


def list_items(source: Path) -> Listing:
    """Lists the clips and pictures of a source; see `list_clips` and `list_pictures`."""
    return Listing(list_clips(source), list_pictures(source))


def _row(item: Source) -> dict[str, Any]:
    return {**asdict(item), "path": None if item.path is None else str(item.path)}


def _source(row: dict[str, Any]) -> Source:
    known = {field.name for field in fields(Source)}
    values = {key: value for key, value in row.items() if key in known}
    path = values["path"]
    return Source(**{**values, "path": None if path is None else Path(path)})


def _bytes_of(item: Source) -> str:
    return sha256_file(item.path) if item.path is not None and item.path.is_file() else ""
