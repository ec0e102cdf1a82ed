"""Published layouts of multi-turn editing sets, read chat by chat; nothing is judged here but the layout itself.

Memory stays flat: pictures are handed on as files, or as the bytes of one chat at a time.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from visavis.errors import VisavisError

PictureRef: TypeAlias = bytes | Path
_BATCH_ROWS = 16
_SESSIONS = "edit_sessions.json"
_COLUMNS = ["img_id", "turn_index", "source_img", "instruction", "target_img"]
_NUMBERED = re.compile(r"(?:instruction|edit_image)_(\d+)")


@dataclass(frozen=True)
class EditTurn:
    """One edit.

    Attributes:
        instruction: What to do; empty if there is none.
        source: The picture to edit, in later turns that of the turn before; None if there is none.
        target: The edited picture; None if there is none.
    """

    instruction: str
    source: PictureRef | None
    target: PictureRef | None


@dataclass(frozen=True)
class EditChat:
    """All edits that one source picture went through, in order.

    Attributes:
        key: Names the chat in its set.
        source_id: The set's own name of the source picture.
        turns: The edits.
        fault: Why the chat is of no use already, if it is.
    """

    key: str
    source_id: str
    turns: tuple[EditTurn, ...] = ()
    fault: str | None = None


def read_magicbrush(source: Path) -> Iterator[EditChat]:
    """Reads MagicBrush, in either of its two published layouts; a chat is a session.

    As Parquet: `train-*.parquet`, `dev-*.parquet` in the folder or in its `data/`, with the columns `img_id`,
    `turn_index` (from 1), `source_img`, `mask_img`, `instruction`, `target_img`; a picture is a struct with its
    `bytes`, and the rows of a session lie one after the other. As files: `edit_sessions.json` in the folder or in
    folders in it (`train/`, `dev/`, `test/`), which maps an image id to a list of `{"input", "mask", "output",
    "instruction"}`; the pictures lie in `images/<image id>/` beside it. Masks are not read: instructions do
    without. Where there are tables, they alone are read.

    Raises:
        VisavisError: If there is neither.
    """
    tables = sorted([*source.glob("*-*.parquet"), *source.glob("data/*-*.parquet")])
    sessions = sorted([*source.glob(_SESSIONS), *source.glob(f"*/{_SESSIONS}")])
    if not tables and not sessions:
        raise VisavisError(
            f"{source} holds no MagicBrush data (neither data/*.parquet nor {_SESSIONS})",
            fix="give the folder that was downloaded, with archives unpacked",
        )
    yield from _from_tables(tables)
    for path in () if tables else sessions:
        yield from _from_sessions(path, path.parent.relative_to(source))


def _from_tables(tables: list[Path]) -> Iterator[EditChat]:
    seen: Counter[str] = Counter()
    for (split, number), rows in groupby(_rows(tables), lambda row: (row["split"], row["img_id"])):
        key = f"{split}/{number}"
        seen[key] += 1
        if seen[key] > 1:
            # It was torn apart: which part is right, nobody can say.
            yield EditChat(f"{key}#{seen[key]}", str(number), (), "broken_turn_order")
        else:
            yield _from_rows(key, str(number), list(rows))


def _rows(tables: list[Path]) -> Iterator[dict[str, Any]]:
    """Yields the rows of all tables; a table that cannot be read ends in a row that says so."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in tables:
        split = path.name.partition("-")[0]
        damaged = {"split": split, "img_id": path.name, "damaged": True}
        try:
            with pq.ParquetFile(path) as table:
                if not set(_COLUMNS) <= set(table.schema_arrow.names):
                    yield damaged
                    continue
                for batch in table.iter_batches(_BATCH_ROWS, columns=_COLUMNS):
                    for row in batch.to_pylist():
                        yield {**row, "split": split, "damaged": False}
        except (pa.ArrowException, OSError):
            yield damaged


def _from_rows(key: str, source_id: str, rows: list[dict[str, Any]]) -> EditChat:
    if any(row["damaged"] for row in rows):
        return EditChat(key, source_id, (), "damaged_annotation")
    if [row["turn_index"] for row in rows] != list(range(1, len(rows) + 1)):
        return EditChat(key, source_id, (), "broken_turn_order")
    turns = (
        EditTurn(
            str(row["instruction"] or ""),
            (row["source_img"] or {}).get("bytes"),
            (row["target_img"] or {}).get("bytes"),
        )
        for row in rows
    )
    return EditChat(key, source_id, tuple(turns))


def _from_sessions(path: Path, place: Path) -> Iterator[EditChat]:
    content = _json(path.read_bytes())
    if not isinstance(content, dict):
        yield EditChat((place / path.name).as_posix(), path.name, (), "damaged_annotation")
        return
    for number, session in content.items():
        key, folder = (place / number).as_posix(), path.parent / "images"
        if not isinstance(session, list) or not all(isinstance(turn, dict) for turn in session):
            yield EditChat(key, number, (), "damaged_annotation")
            continue
        names = [(turn.get("input"), turn.get("output")) for turn in session]
        # After the first turn, what goes in is what came out before.
        if any(entering != leaving for (_, leaving), (entering, _) in pairwise(names)):
            yield EditChat(key, number, (), "broken_turn_order")
            continue
        turns = (
            EditTurn(
                str(turn.get("instruction") or ""),
                _found([folder], entering and f"{number}/{entering}"),
                _found([folder], leaving and f"{number}/{leaving}"),
            )
            for turn, (entering, leaving) in zip(session, names, strict=True)
        )
        yield EditChat(key, number, tuple(turns))


def read_seed_data_edit(source: Path) -> Iterator[EditChat]:
    """Reads part 3 of SEED-Data-Edit, `multi_turn_editing`; a chat is a line.

    `annotations/*.jsonl` in the folder (or the files themselves) hold `source_image`, and for each turn k from 1
    `instruction_k` and `edit_image_k`; `inverse_instruction_k` is not read. Pictures are named relative to the
    folder, to its `images/` or to its `data/`, into which the archives were unpacked.

    Raises:
        VisavisError: If there are no such files.
    """
    files = sorted([*source.glob("annotations/*.jsonl"), *source.glob("*.jsonl")])
    if not files:
        raise VisavisError(
            f"{source} holds no SEED-Data-Edit data (annotations/*.jsonl is missing)",
            fix="give its folder multi_turn_editing, with archives unpacked",
        )
    roots = [source, source / "images", source / "data"]
    for path in files:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    key = f"{path.relative_to(source).with_suffix('').as_posix()}/{number}"
                    yield _from_line(key, _json(line), roots)


def _from_line(key: str, row: Any, roots: list[Path]) -> EditChat:
    if not isinstance(row, dict):
        return EditChat(key, key, (), "damaged_annotation")
    source_id = str(row.get("source_image") or key)
    numbers = sorted({int(match[1]) for name in row if (match := _NUMBERED.fullmatch(name))})
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        return EditChat(key, source_id, (), "broken_turn_order")
    names = ["source_image", *(f"edit_image_{number}" for number in numbers)]
    pictures = [_found(roots, row.get(name)) for name in names]
    instructions = [str(row.get(f"instruction_{number}") or "") for number in numbers]
    return EditChat(key, source_id, tuple(map(EditTurn, instructions, pictures, pictures[1:])))


def _json(data: bytes) -> Any:
    """Returns the parsed JSON; None if it is none."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def _found(roots: list[Path], name: Any) -> Path | None:
    """Returns the first file of that name below one of the roots; a name that leads out of them names none."""
    inner = PurePosixPath(str(name or ".."))
    if inner.is_absolute() or ".." in inner.parts:
        return None
    for root in roots:
        try:
            if (root / inner).is_file():
                return root / inner
        except (OSError, ValueError):
            # No file has such a name: too long, or with a zero byte in it.
            continue
    return None


LAYOUTS: dict[str, Callable[[Path], Iterator[EditChat]]] = {
    "magicbrush": read_magicbrush,
    "seed-data-edit": read_seed_data_edit,
}
"""Name of a layout -> its reader."""
