import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visavis.data.intake.manifests import Entry, read_manifest
from visavis.errors import VisavisError

ROWS: list[dict[str, Any]] = [
    {"file": "a b.mp4", "licence": "CC0-1.0", "consent": "yes", "recording": "7", "shelf": "x"},
    {"file": "q\"uo'te, 人.mp4", "licence": None, "consent": "no", "recording": None, "shelf": None},
    {"file": "line\nfeed.mp4", "licence": "MIT", "consent": None, "recording": "film", "shelf": "y"},
    {"file": None, "licence": "MIT", "consent": None, "uri": "s3://b/k e y.mp4", "recording": None},
]
ENTRIES = [
    Entry("a b.mp4", "a b.mp4", "CC0-1.0", True, "7"),
    Entry("q\"uo'te, 人.mp4", "q\"uo'te, 人.mp4", None, False, None),
    Entry("line\nfeed.mp4", "line\nfeed.mp4", "MIT", None, "film"),
    Entry("s3://b/k e y.mp4", "s3://b/k e y.mp4", "MIT", None, None),
]
CSV = (
    "file,licence,consent,recording,uri,shelf\r\n"
    "a b.mp4,CC0-1.0,yes,7,,x\r\n"
    '"q""uo\'te, 人.mp4",,no,,,\r\n'
    "\r\n"
    '"line\nfeed.mp4",MIT,,film\r\n'
    ",MIT,,,s3://b/k e y.mp4,\r\n"
)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=None), path)
    return path


def test_the_three_kinds_say_the_same(tmp_path: Path) -> None:
    columns = {key: None for row in ROWS for key in row}
    rows = [{**columns, **row} for row in ROWS]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    for mark in ("", "\ufeff"):
        assert read_manifest(write(tmp_path / "m.jsonl", mark + lines)) == ENTRIES
        assert read_manifest(write(tmp_path / "m.csv", mark + CSV)) == ENTRIES
    assert read_manifest(write(tmp_path / "m.csv", CSV.replace(",", ";"))) == [
        *ENTRIES[:1],
        Entry("q\"uo'te; 人.mp4", "q\"uo'te; 人.mp4", None, False, None),
        *ENTRIES[2:],
    ]
    assert read_manifest(write_parquet(tmp_path / "m.parquet", rows)) == ENTRIES


def test_columns_may_be_written_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "m.CSV", "License, File \nMIT ,a.mp4\n")
    assert read_manifest(path) == [Entry("a.mp4", "a.mp4", "MIT")]
    assert read_manifest(write(tmp_path / "m.jsonl", '{"file": "a", "license": "MIT"}'))[0].licence == "MIT"


@pytest.mark.parametrize(
    ("value", "consent"),
    [
        *((word, True) for word in (True, "Yes", 1, "signed")),
        *((word, False) for word in (False, "No ", "", "withdrawn", 0, "0")),
        *((word, None) for word in (None, "unknown")),
    ],
)
def test_consent_is_what_it_says(tmp_path: Path, value: Any, consent: bool | None) -> None:
    path = write(tmp_path / "m.jsonl", json.dumps({"file": "a", "consent": value}))
    assert read_manifest(path)[0].consent is consent


def test_numbers_and_truth_values_of_parquet_are_understood(tmp_path: Path) -> None:
    rows = [
        {"file": "a", "consent": 1.0, "recording": 3},
        {"file": "b", "consent": float("nan"), "recording": 4},
    ]
    entries = read_manifest(write_parquet(tmp_path / "m.parquet", rows))
    assert [(e.consent, e.recording) for e in entries] == [(True, "3"), (None, "4")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.jsonl", '{"file": "a"}\n{', "line 2 is not JSON"),
        ("m.jsonl", '{"file": "a"}\n\n[]', "line 3: .* is not an object"),
        ("m.jsonl", '{"id": 1}', "line 1: no `file` and no `uri`"),
        ("m.jsonl", '{"file": ["a"]}', "line 1, column `file`: .*'a'.* is list"),
        ("m.jsonl", '{"file": "a", "licence": {"id": "MIT"}}', "line 1, column `licence`: .*MIT.* is dict"),
        ("m.jsonl", '{"file": "a", "consent": []}', "line 1, column `consent`"),
        ("m.jsonl", '{"file": "\\ud800.mp4"}', "line 1, column `file`.*ud800"),
        ("m.jsonl", '{"uri": "https://example.org/a.mp4"}', "line 1, column `uri`: .*example.org"),
        ("m.jsonl", '{"uri": "s3://bucket"}', "line 1, column `uri`"),
        ("m.jsonl", '{"file": "a"}\n{"file": "a"}', "line 2: 'a' is listed twice, first in line 1"),
        ("m.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("m.jsonl", b'{"file": "\xff"}', "not UTF-8"),
        ("m.csv", "", "no column `file` or `uri`; the columns are none"),
        ("m.csv", "name,licence\na,b\n", "no column `file` or `uri`; the columns are `name`, `licence`"),
        ("m.csv", "file,licence,license\na,b,c\n", "2 columns mean `licence`"),
        ("m.csv", 'file,licence\n"a\nb",MIT\na,b,c\n', "line 4: 3 cells under 2 columns.*'c'"),
        ("m.csv", 'file\na\n"b\n', "line 3: unexpected end"),
        ("m.csv", "file,licence\na,MIT\n,MIT\n", "line 3: no `file`"),
        ("m.csv", "file\na\na\n", "line 3: 'a' is listed twice, first in line 2"),
        ("m.csv", b"file\n\xe4.mp4\n", "not UTF-8"),
        ("m.parquet", "no parquet", "not a whole Parquet file"),
    ],
)
def test_mistakes_are_named_with_their_place(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(VisavisError, match=rf"(?s){name}.*{message}"):
        read_manifest(write(tmp_path / name, text))


def test_mistakes_in_parquet_are_named_by_their_row(tmp_path: Path) -> None:
    for rows, message in (
        ([{"file": "a"}, {"file": None}], "row 2: no `file`"),
        ([{"file": "a"}, {"file": "a"}], "row 2: 'a' is listed twice, first in row 1"),
        ([{"file": 3}], "row 1, column `file`: 3 is int"),
        ([{"name": "a"}], "no column `file`"),
    ):
        with pytest.raises(VisavisError, match=message):
            read_manifest(write_parquet(tmp_path / "m.parquet", rows))
    whole = write_parquet(tmp_path / "m.parquet", [{"file": f"{n}"} for n in range(1000)]).read_bytes()
    for tenth in range(10):
        with pytest.raises(VisavisError, match="not a whole Parquet file"):
            read_manifest(write(tmp_path / "m.parquet", whole[: len(whole) * tenth // 10]))


def test_an_unreadable_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match=r"gone\.csv cannot be read"):
        read_manifest(tmp_path / "gone.csv")


def test_long_values_are_not_shown_in_full(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", json.dumps({"file": ["x" * 10_000]}))
    with pytest.raises(VisavisError) as caught:
        read_manifest(path)
    assert len(str(caught.value)) < 500
