"""What there is to curate, and its division into parts that are worked on side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from visavis.data.config import BucketConfig
from visavis.data.intake.sources import Source, list_clips, list_pictures
from visavis.files import read_jsonl, sha256_bytes, sha256_file, write_jsonl


@dataclass(frozen=True)
class Listing:
    """Clips and natural pictures in the order of their source.

    Attributes:
        clips: Videos.
        pictures: Natural pictures.
        contents: What stands for the bytes of each item, by its ref: their sha256, or the tag that a bucket gives
            them; empty for what cannot be read. None until `hashed`.
    """

    clips: Sequence[Source]
    pictures: Sequence[Source]
    contents: Mapping[str, str] | None = None

    def __len__(self) -> int:
        return len(self.clips) + len(self.pictures)

    def parts(self, size: int) -> list[Listing]:
        """Divides the items into parts of at most `size`; all of them in order are this listing again.

        Clips and pictures are in different parts, so that a new clip at the end leaves all others as they were. An
        empty listing has one empty part.
        """
        clips = [Listing(items, [], self.contents) for items in _divided(self.clips, size)]
        pictures = [Listing([], items, self.contents) for items in _divided(self.pictures, size)]
        return [*clips, *pictures] or [Listing([], [], self.contents)]

    def hashed(self) -> Listing:
        """Returns the listing with the hash of every file."""
        contents = {item.ref: _content(item) for item in self._all()}
        return replace(self, contents=contents)

    def digest(self) -> str:
        """Returns a hash over names, facts and bytes, wherever the files lie: equal digests mean equal work.

        Raises:
            TypeError: If the files were not hashed.
        """
        if self.contents is None:
            raise TypeError("the files of this listing were not hashed")
        rows = [{key: value for key, value in row.items() if key != "path"} for row in self._rows()]
        return sha256_bytes(json.dumps(rows, sort_keys=True).encode())

    def save(self, path: Path) -> None:
        """Writes the listing as JSON lines, atomically."""
        write_jsonl(path, self._rows())

    @classmethod
    def load(cls, path: Path) -> Listing:
        """Reads what `save` wrote."""
        found: dict[str, list[Source]] = {"clip": [], "picture": []}
        contents = {}
        for row in read_jsonl(path):
            kind, contents[row["ref"]] = row.pop("kind"), row.pop("content")
            place = row["path"]
            facts = {**row, "path": place and Path(place), "span": row["span"] and tuple(row["span"])}
            found[kind].append(Source(**facts))
        hashed = None not in contents.values()
        return cls(found["clip"], found["picture"], contents if hashed else None)

    def _all(self) -> list[Source]:
        return [*self.clips, *self.pictures]

    def _rows(self) -> list[dict[str, Any]]:
        contents = self.contents or {}
        kinds = ["clip"] * len(self.clips) + ["picture"] * len(self.pictures)
        return [
            {
                **asdict(item),
                "path": None if item.path is None else str(item.path),
                "kind": kind,
                "content": contents.get(item.ref),
            }
            for kind, item in zip(kinds, self._all(), strict=True)
        ]


def list_items(source: str | Path, limits: BucketConfig | None = None) -> Listing:
    """Lists the clips and pictures of a source; see `list_clips` and `list_pictures`."""
    return Listing(list_clips(source, limits), list_pictures(source, limits))


def _divided(items: Sequence[Source], size: int) -> list[Sequence[Source]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _content(item: Source) -> str:
    if item.remote is not None:
        return item.etag or ""
    try:
        return sha256_file(item.path) if item.path is not None and item.path.is_file() else ""
    except OSError:
        return ""  # whoever tries to open it finds out why, and that is its row in the ledger
