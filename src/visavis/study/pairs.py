"""Pairs of pictures to compare, from two folders of generated pictures or from a manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
OURS, THEIRS = "ours", "theirs"
_PROMPT_KEYS = {"file", "prompt", "face"}
_SYSTEM = re.compile(r"[A-Za-z0-9_-]{1,60}")  # part of a metric's path
_MANIFEST_KEYS = {"name", "prompt", "face", "a", "b", "system_a", "system_b"}


@dataclass(frozen=True)
class Pair:
    """What two systems made of one prompt.

    Attributes:
        name: Tells it from the other pairs of the study.
        a: Picture of system A, the one whose wins are counted.
        b: Picture of system B.
        prompt: The words that both were given; may be empty.
        face: Picture of the person to show, if one was given.
        system_a: Name of system A.
        system_b: Name of system B.
    """

    name: str
    a: Path
    b: Path
    prompt: str = ""
    face: Path | None = None
    system_a: str = OURS
    system_b: str = THEIRS


def pairs_from_folders(
    ours: Path, theirs: Path, prompts: Path | None = None
) -> tuple[list[Pair], tuple[str, ...]]:
    """Pairs up the pictures of two folders by their file names.

    Args:
        ours: Pictures of system A.
        theirs: Pictures of system B; a picture pairs up with the one of the same name, whatever its suffix.
        prompts: JSON lines of `file`, `prompt` and optional `face` (a path from the folder of this file).

    Returns:
        The pairs in the order of their names, and the names that only one folder has.

    Raises:
        VisavisError: If a folder is missing, two pictures share a name, no names are shared, or a line of
            `prompts` is wrong or names no pair.
    """
    first, second = _pictures(ours, "--ours"), _pictures(theirs, "--theirs")
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise VisavisError(
            f"no picture of {ours} has the name of one in {theirs}",
            fix="give the two pictures of a prompt the same file name in both folders",
        )
    told: dict[str, tuple[str, Path | None]] = {}
    if prompts is not None:
        for where, row in _rows(prompts, _PROMPT_KEYS, ("file", "prompt")):
            name = Path(row["file"]).stem
            if name not in first and name not in second:
                raise VisavisError(
                    f"{where}: file is {row['file']!r}, which no folder has",
                    fix="name a picture of the two folders, or remove the line",
                )
            told[name] = (row["prompt"], _beside(prompts, row.get("face"), where, "face"))
        if missing := [name for name in shared if name not in told]:
            raise VisavisError(
                f"{prompts} says nothing of {missing[0]} ({len(missing)} in all)",
                fix="add a line for each pair, or leave the file out: then only quality is asked",
            )
    pairs = [Pair(name, first[name], second[name], *told.get(name, ("", None))) for name in shared]
    return pairs, tuple(sorted(first.keys() ^ second.keys()))


def pairs_from_manifest(manifest: Path) -> list[Pair]:
    """Reads pairs from JSON lines; this way more than two systems can be compared.

    Args:
        manifest: Lines of `a`, `b` (pictures; paths from the manifest's folder) and optional `prompt`, `face`,
            `name`, `system_a`, `system_b`.

    Raises:
        VisavisError: If a line is wrong, a file is missing, or two pairs share a name.
    """
    pairs: dict[str, Pair] = {}
    for where, row in _rows(manifest, _MANIFEST_KEYS, ("a", "b")):
        a, b = (_beside(manifest, row[side], where, side) for side in ("a", "b"))
        assert a is not None and b is not None
        systems = (row.get("system_a") or OURS, row.get("system_b") or THEIRS)
        name = row.get("name") or f"{len(pairs):05d}"
        if name in pairs:
            raise VisavisError(f"{where}: name is {name!r}, as before", fix="give each pair its own name")
        if systems[0] == systems[1]:
            raise VisavisError(
                f"{where}: system_a and system_b are both {systems[0]!r}", fix="compare two different systems"
            )
        if strange := [system for system in systems if not _SYSTEM.fullmatch(system)]:
            raise VisavisError(
                f"{where}: a system is named {strange[0]!r}", fix="use up to 60 letters, digits, '_' or '-'"
            )
        face = _beside(manifest, row.get("face"), where, "face")
        pairs[name] = Pair(name, a, b, row.get("prompt") or "", face, *systems)
    if not pairs:
        raise VisavisError(f"{manifest} is empty", fix='write a line such as {"a": "x.png", "b": "y.png"}')
    return list(pairs.values())


def _pictures(folder: Path, option: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise VisavisError(f"{option} is {folder}, which is not a folder", fix="give a folder of pictures")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            if path.stem in found:
                raise VisavisError(
                    f"{option} holds {found[path.stem].name} and {path.name}", fix="keep one of the two"
                )
            found[path.stem] = path
    if not found:
        raise VisavisError(
            f"{option} is {folder}, which holds no pictures", fix=f"give files of {', '.join(SUFFIXES)}"
        )
    return found


def _rows(path: Path, known: set[str], needed: tuple[str, ...]) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns each line's place and object; every value is a text or null."""
    if not path.is_file():
        raise VisavisError(f"{path} does not exist", fix="give a file of JSON lines")
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise VisavisError(f"{where} is no JSON: {error}", fix="write one object a line") from None
        if not isinstance(row, dict) or not all(isinstance(v, str | None) for v in row.values()):
            raise VisavisError(f"{where} is not an object of texts", fix=f"give {', '.join(sorted(known))}")
        if strange := sorted(row.keys() - known):
            raise VisavisError(f"{where} holds {strange[0]!r}", fix=f"give {', '.join(sorted(known))}")
        if missing := [name for name in needed if not isinstance(row.get(name), str)]:
            raise VisavisError(f"{where} lacks {missing[0]!r}", fix="add it to the line")
        rows.append((where, row))
    return rows


def _beside(file: Path, name: str | None, where: str, field: str) -> Path | None:
    if not name:
        return None
    path = file.parent / name
    if not path.is_file():
        raise VisavisError(
            f"{where}: {field} is {name!r}, and {path} is no file",
            fix="give the path from the folder of this file",
        )
    return path
