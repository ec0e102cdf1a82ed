"""Manifests of clips: JSON lines, CSV or Parquet, in which people state what they have and what may be done with it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError

MANIFEST_SUFFIXES = (".jsonl", ".csv", ".parquet")
COLUMNS = ("file", "uri", "licence", "consent", "recording")

_ALIASES = {"license": "licence"}
_REFUSALS = frozenset(
    {"no", "n", "none", "false", "f", "0", "0.0", "refused", "denied", "withdrawn", "revoked", ""}
)
_UNSTATED = frozenset({"unknown", "unclear", "pending", "n/a", "null", "?"})
_ADDRESS = re.compile(r"s3://[^/]+/.+", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DELIMITERS = ",;\t"
_BATCH_ROWS = 4096
_SHOWN = 60


@dataclass(frozen=True)
class Entry:
    """One line of a manifest.

    Attributes:
        target: What to open: a file relative to the manifest, or an `s3://` address; unique.
        uri: Where it came from, for the ledger and for people.
        licence: As stated.
        consent: False if the people in it refused or withdrew; None if nothing is stated or known.
        recording: What the clip was cut from.
    """

    target: str
    uri: str
    licence: str | None = None
    consent: bool | None = None
    recording: str | None = None


def read_manifest(path: Path, name: str | None = None) -> list[Entry]:
    """Reads a manifest; what kind it is says its suffix.

    Columns are `file` or `uri` (one of them must say what to open), `licence`, `consent` and `recording`; others are
    ignored. Empty cells of CSV and nulls state nothing.

    Args:
        path: File to read.
        name: What to call it in messages, if not by its path.

    Raises:
        VisavisError: If it cannot be read, or a line names nothing, names something twice or holds a value of a
            kind that the column cannot have.
    """
    name = name or str(path)
    read = {".jsonl": _json_lines, ".csv": _csv_rows, ".parquet": _parquet_rows}[path.suffix.lower()]
    entries: dict[str, Entry] = {}
    places: dict[str, str] = {}
    try:
        for place, row in read(path, name):
            entry = _entry(f"{name}, {place}", row)
            if first := places.get(entry.target):
                raise VisavisError(
                    f"{name}, {place}: {_shown(entry.target)} is listed twice, first in {first}",
                    fix="remove one of the two",
                )
            places[entry.target] = place
            entries[entry.target] = entry
    except OSError as error:
        raise VisavisError(
            f"{name} cannot be read: {error.strerror or error}", fix="make it a readable file"
        ) from error
    return list(entries.values())


def _entry(place: str, row: Mapping[str, Any]) -> Entry:
    cells = {column: _text(place, column, row.get(column)) for column in COLUMNS if column != "consent"}
    column = "file" if cells["file"] else "uri"
    target = cells[column]
    if not target:
        raise VisavisError(
            f"{place}: no `file` and no `uri`",
            fix='name what to open: {"file": "clips/a.mp4", "licence": "CC-BY-4.0"}, or the same as columns',
        )
    if _SCHEME.match(target) and not _ADDRESS.fullmatch(target):
        raise VisavisError(
            f"{place}, column `{column}`: {_shown(target)} cannot be opened",
            fix="give an s3://bucket/key address, or download it and name its path in the column `file`",
        )
    try:
        target.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise VisavisError(
            f"{place}, column `{column}`: {target!a} is not a text: {error.reason}",
            fix="write the name as UTF-8",
        ) from None
    return Entry(target, cells["uri"] or target, cells["licence"], _consent(place, row), cells["recording"])


def _text(place: str, column: str, value: Any) -> str | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if column in ("file", "uri") and not isinstance(value, str):
        raise _wrong_kind(place, column, value, "text")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong_kind(place, column, value, "text or a number")
    # Names of files may begin or end with spaces; facts never mean them.
    return str(value) if column in ("file", "uri") else str(value).strip() or None


def _consent(place: str, row: Mapping[str, Any]) -> bool | None:
    value = row.get("consent")
    if value is None or isinstance(value, bool) or (isinstance(value, float) and math.isnan(value)):
        return value if isinstance(value, bool) else None
    if not isinstance(value, str | int | float):
        raise _wrong_kind(place, "consent", value, "true, false, a word or nothing")
    word = str(value).strip().lower()
    return None if word in _UNSTATED else word not in _REFUSALS


def _wrong_kind(place: str, column: str, value: Any, wanted: str) -> VisavisError:
    return VisavisError(
        f"{place}, column `{column}`: {_shown(value)} is {type(value).__name__}",
        fix=f"write {wanted} into `{column}`",
    )


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _json_lines(path: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    fix = 'write one JSON object per line: {"file": "clips/a.mp4", "licence": "CC-BY-4.0"}'
    # Only a line feed ends a line: names may hold other signs that Python takes for line ends.
    with path.open(encoding="utf-8-sig", newline="\n") as stream:
        for number, line in enumerate(_decoded(stream, name), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise VisavisError(f"{name}, line {number} is not JSON: {error}", fix=fix) from None
            if not isinstance(row, dict):
                raise VisavisError(f"{name}, line {number}: {_shown(row)} is not an object", fix=fix)
            yield f"line {number}", {_ALIASES.get(key) or key: value for key, value in row.items()}


def _csv_rows(path: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = next(_decoded(stream, name), "")
        delimiter = max(_DELIMITERS, key=header.count)
        columns = [_column(cell) for cell in next(csv.reader(io.StringIO(header), delimiter=delimiter), [])]
        _check_columns(columns, name)
        table = csv.reader(_decoded(stream, name), delimiter=delimiter, strict=True)
        while True:
            # A cell in quotes may hold line feeds, so a row begins after the last line of the one before.
            place = f"line {table.line_num + 2}"
            try:
                cells = next(table)
            except StopIteration:
                return
            except csv.Error as error:
                raise VisavisError(
                    f"{name}, {place}: {error}",
                    fix='close every quote, and write a quote inside of one as ""',
                ) from None
            if not any(cells):
                continue
            if len(cells) > len(columns):
                raise VisavisError(
                    f"{name}, {place}: {len(cells)} cells under {len(columns)} columns, "
                    f"the first too many is {_shown(cells[len(columns)])}",
                    fix=f'put values that hold "{delimiter}" in double quotes',
                )
            # What Excel leaves away at the end of a row is empty.
            yield place, {column: cell or None for column, cell in zip(columns, cells, strict=False)}


def _parquet_rows(path: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise VisavisError(
            f"{name}: Parquet needs pyarrow, which is not installed", fix="pip install 'visavis[curate]'"
        ) from None
    try:
        with pq.ParquetFile(path) as table:
            names = {field: _column(field) for field in table.schema_arrow.names}
            _check_columns(list(names.values()), name)
            used = [field for field, column in names.items() if column in COLUMNS]
            number = 0
            for batch in table.iter_batches(_BATCH_ROWS, columns=used):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", {names[field]: value for field, value in row.items()}
    except pa.ArrowException as error:
        raise VisavisError(f"{name} is not a whole Parquet file: {error}", fix="write it anew") from error


def _column(header: str) -> str:
    column = header.strip().lower()
    return _ALIASES.get(column, column)


def _check_columns(columns: Sequence[str], name: str) -> None:
    if "file" not in columns and "uri" not in columns:
        found = ", ".join(f"`{column}`" for column in columns) or "none"
        raise VisavisError(
            f"{name}: no column `file` or `uri`; the columns are {_shown(found)[1:-1]}",
            fix=f"name the columns in the first line: {','.join(COLUMNS)}",
        )
    for column in COLUMNS:
        if columns.count(column) > 1:
            raise VisavisError(
                f"{name}: {columns.count(column)} columns mean `{column}`", fix="remove all but one of them"
            )


def _decoded(stream: io.TextIOBase, name: str) -> Iterator[str]:
    try:
        # Not `yield from`: it would close the file together with this generator.
        for line in stream:  # noqa: UP028
            yield line
    except UnicodeDecodeError as error:
        raise VisavisError(
            f"{name} is not UTF-8: {error.reason} ({error.object[error.start : error.start + 1]!r})",
            fix="save it as UTF-8",
        ) from None
