"""What lies in a source folder: clips, from a public manifest or just by their names, and pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError

MANIFEST_NAME = "clips.jsonl"
PICTURES_FOLDER = "pictures"
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".ogv", ".3gp"}
)
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
_REFUSALS = frozenset({"no", "none", "false", "refused", "withdrawn", ""})


@dataclass(frozen=True)
class Source:
    """One item of the source folder.

    Attributes:
        ref: Its name inside the folder; unique.
        path: Where it lies; None if it must not be opened (`problem` says why).
        uri: Where it came from, for the ledger and for people.
        licence: As the manifest states it.
        recording: What the clip was cut from, as the manifest names it; clips of one recording share a split.
        consent: False if the people in it refused or withdrew; None if nothing is known.
        problem: Reason to drop it unopened.
    """

    ref: str
    path: Path | None
    uri: str
    licence: str | None = None
    consent: bool | None = None
    recording: str | None = None
    problem: str | None = None


def list_clips(source: Path) -> list[Source]:
    """Returns the clips of a folder in a stable order.

    With a `clips.jsonl` (objects with `file`, and optionally `uri`, `licence`, `consent`, `recording`)
    exactly its entries; without, every file with a video's suffix below the folder. Links to folders are not followed,
    so loops cannot trap the walk.

    Raises:
        VisavisError: If the folder is missing, or a line of the manifest is not an object with a `file`.
    """
    if not source.is_dir():
        raise VisavisError(
            f"clips.source is {source}, which is not a folder",
            fix="set clips.source to a folder of video files, or of clips.jsonl and its files",
        )
    manifest = source / MANIFEST_NAME
    if manifest.is_file():
        return _from_manifest(source, manifest)
    return [Source(ref, source / ref, ref) for ref in _walk(source, VIDEO_SUFFIXES, skip=PICTURES_FOLDER)]


def list_pictures(source: Path) -> list[Source]:
    """Returns the natural pictures below `pictures/`, in a stable order; an absent folder means none."""
    folder = source / PICTURES_FOLDER
    if not folder.is_dir():
        return []
    names = [f"{PICTURES_FOLDER}/{ref}" for ref in _walk(folder, PICTURE_SUFFIXES, skip=None)]
    return [Source(ref, source / ref, ref) for ref in names]


def _walk(folder: Path, suffixes: frozenset[str], skip: str | None) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder):
        relative = Path(parent).relative_to(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if skip and relative == Path():
            folders[:] = [name for name in folders if name != skip]
        found += [
            str(relative / name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(found, key=os.fsencode)


def _from_manifest(source: Path, manifest: Path) -> list[Source]:
    root = source.resolve()
    clips: dict[str, Source] = {}
    for number, entry in _lines(manifest):
        ref = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(ref, str) or not ref:
            raise VisavisError(
                f"{manifest}, line {number}: no `file`",
                fix='write one JSON object per line: {"file": "clips/a.mp4", "licence": "CC-BY-4.0"}',
            )
        if ref in clips:
            raise VisavisError(
                f"{manifest}, line {number}: {ref!r} is listed twice", fix="remove one of the lines"
            )
        clips[ref] = _entry(source, root, ref, entry)
    return list(clips.values())


def _lines(manifest: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(manifest.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise VisavisError(
                f"{manifest}, line {number} is not JSON: {error}", fix="write one JSON object per line"
            ) from None


def _entry(source: Path, root: Path, ref: str, entry: dict[str, Any]) -> Source:
    facts: dict[str, Any] = {
        "uri": str(entry.get("uri") or ref),
        "licence": str(entry["licence"]) if entry.get("licence") else None,
        "consent": _consent(entry.get("consent")),
        "recording": str(entry["recording"]) if entry.get("recording") else None,
    }
    # A manifest is somebody else's text: it must not make us read files outside of its folder.
    try:
        inside = "\0" not in ref and (source / ref).resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return Source(ref, None, problem="unreadable", **facts)
    if not inside:
        return Source(ref, None, problem="outside_source", **facts)
    return Source(ref, source / ref, **facts)


def _consent(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    return str(value).strip().lower() not in _REFUSALS
