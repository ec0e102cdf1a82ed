"""Editing sets in their published layouts become whole data sets; what is broken ends in a ledger row."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from editing_world import Session, picture, session, write_lines, write_sessions, write_tables
from PIL import Image

from visavis.chat.layout import lay_out
from visavis.chat.template import RESPONSE, Template
from visavis.data.chats.importers import import_editing
from visavis.data.config import ConversationConfig, PictureConfig
from visavis.data.ledger import read_ledger
from visavis.data.published.shards import read_index, read_samples
from visavis.errors import VisavisError
from visavis.files import read_json, read_jsonl, sha256_file
from visavis.pretrain.vocabulary import build_tokenizer

CONFIG = ConversationConfig(title="Edits", shares={"train": 0.5, "val": 0.25, "test": 0.25})


WRITERS: dict[str, tuple[str, Callable[[Path, list[Session]], Path]]] = {
    "tables": ("magicbrush", write_tables),
    "sessions": ("magicbrush", write_sessions),
    "lines": ("seed-data-edit", write_lines),
}


def sessions() -> list[Session]:
    return [session(number, 1 + number % 3) for number in range(1, 9)]


@pytest.mark.parametrize("name", WRITERS)
def test_chats_come_out_as_they_went_in(tmp_path: Path, name: str) -> None:
    layout, write = WRITERS[name]
    given = sessions()
    counts = import_editing(
        layout, write(tmp_path / "in", given), tmp_path / "out", CONFIG, licence="CC-BY-4.0"
    )
    assert counts == {"in": 8, "kept": 8, "dropped": {}}
    samples = list(read_samples(tmp_path / "out", sets=["editing"]))
    assert len(samples) == 8
    by_words = {rows[0]["instruction"]: rows for rows in given}
    for sample in samples:
        rows = by_words[sample["turns"][0]["content"][0]["text"]]
        assert sample["turns"][0]["content"][1] == {"type": "image", "image": 0}
        users = [turn["content"] for turn in sample["turns"][::2]]
        assert [content[0]["text"] for content in users] == [row["instruction"] for row in rows]
        assert all(len(content) == 1 for content in users[1:])
        assert [turn["content"][1]["image"] for turn in sample["turns"][1::2]] == list(
            range(1, len(rows) + 1)
        )
        wanted = [rows[0]["source_img"]["bytes"], *(row["target_img"]["bytes"] for row in rows)]
        for image, data in zip(sample["images"], wanted, strict=True):
            whole = np.asarray(Image.open(io.BytesIO(data)))
            np.testing.assert_array_equal(image, whole[:, 4:44])
        # Markov: each picture needs the one before, the first one its own turn.
        assert [entry["depends_on"] for entry in sample["tags"]["shows"]] == [
            max(turn - 2, 0) for turn in range(1, len(sample["turns"]), 2)
        ]
    assert {row["split"] for row in read_index(tmp_path / "out")} == {"train", "val", "test"}
    assert {row["licence"] for row in read_jsonl(tmp_path / "out" / "origins.jsonl")} == {"CC-BY-4.0"}


def test_the_data_set_is_whole_and_passes_its_validation(tmp_path: Path) -> None:
    write_tables(tmp_path / "in", sessions())
    for name in ("a", "b"):
        import_editing("magicbrush", tmp_path / "in", tmp_path / name, CONFIG)
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert files >= {
        "index.parquet",
        "ledger.jsonl",
        "card.md",
        "viewer.html",
        "dataset.json",
        "validation.json",
    }
    assert not any(name.startswith(".") for name in files)
    assert read_json(tmp_path / "a" / "validation.json")["passed"]
    hashes = [{p.name: sha256_file(p) for p in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert hashes[0] == hashes[1]
    assert "| editing |" in (tmp_path / "a" / "card.md").read_text()


def test_a_source_picture_is_in_one_split_whatever_its_name(tmp_path: Path) -> None:
    given = [session(number, 2) for number in range(1, 13)]
    for number, rows in enumerate(given):
        # Ever three chats begin with one picture.
        rows[0]["source_img"] = {"bytes": picture(1000 + number // 3), "path": None}
    import_editing("magicbrush", write_tables(tmp_path / "in", given), tmp_path / "out", CONFIG)
    homes: dict[str, set[str]] = {}
    for row in read_index(tmp_path / "out"):
        homes.setdefault(row["images"][0], set()).add(row["split"])
    assert len(homes) == 4 and all(len(found) == 1 for found in homes.values())
    assert len({home for found in homes.values() for home in found}) > 1


def without(rows: Session, turn: int, **changes: Any) -> Session:
    rows[turn - 1].update(changes)
    return rows


def test_each_broken_session_of_tables_has_its_reason(tmp_path: Path) -> None:
    good = picture(5)
    broken = {
        "no_instruction": without(session(1, 2), 2, instruction="  "),
        "damaged_picture": without(
            session(2, 2), 2, target_img={"bytes": good[: len(good) // 2], "path": None}
        ),
        "missing_file": without(session(3, 2), 2, target_img={"bytes": None, "path": "x.png"}),
        "broken_turn_order": without(session(4, 2), 2, turn_index=3),
        "broken_chain": without(session(5, 2), 2, source_img={"bytes": picture(77), "path": None}),
        "picture_too_small": without(
            session(6, 1), 1, target_img={"bytes": picture(6, 20, 20), "path": None}
        ),
        "picture_too_large": without(
            session(7, 1), 1, target_img={"bytes": good + b"\0" * 60_000, "path": None}
        ),
    }
    write_tables(tmp_path / "in", [*broken.values(), session(8, 3)])
    (tmp_path / "in" / "data" / "train-9.parquet").write_bytes(b"PAR1 but not really")
    pq.write_table(pa.table({"img_id": ["1"]}), tmp_path / "in" / "data" / "dev-0.parquet")
    counts = import_editing(
        "magicbrush", tmp_path / "in", tmp_path / "out", CONFIG, pictures=PictureConfig(max_bytes=50_000)
    )
    assert counts["kept"] == 1 and counts["in"] == 10
    assert counts["dropped"] == {**dict.fromkeys(broken, 1), "damaged_annotation": 2}
    rows = {row.detail["chat"]: row for row in read_ledger(tmp_path / "out" / "ledger.jsonl")}
    for number, reason in enumerate(broken, 1):
        assert rows[f"train/{number}"].reason == reason
    assert rows["train/8"].detail["turns"] == 3


def test_a_picture_that_was_stored_anew_is_still_the_same_picture(tmp_path: Path) -> None:
    write_tables(tmp_path / "in", [session(1, 3, form="JPEG")])
    assert import_editing("magicbrush", tmp_path / "in", tmp_path / "out", CONFIG)["kept"] == 1


def test_a_session_that_was_torn_apart_is_not_joined(tmp_path: Path) -> None:
    rows = session(1, 2)
    write_tables(tmp_path / "in", [rows[:1], session(2, 1), rows[1:]])
    counts = import_editing("magicbrush", tmp_path / "in", tmp_path / "out", CONFIG)
    assert counts == {"in": 3, "kept": 2, "dropped": {"broken_turn_order": 1}}


def test_each_broken_session_of_files_has_its_reason(tmp_path: Path) -> None:
    root = write_sessions(tmp_path / "in", [session(number, 2) for number in range(1, 7)])
    path = root / "train" / "edit_sessions.json"
    content = json.loads(path.read_text())
    content["1"][1]["input"] = "1-input.png"
    content["2"][0]["instruction"] = None
    content["3"][1]["output"] = "../../../../secret.png"
    content["4"][1]["output"] = "nowhere\0.png"
    content["5"] = "torn"
    path.write_text(json.dumps(content))
    (tmp_path / "secret.png").write_bytes(picture(1))
    (root / "dev").mkdir()
    (root / "dev" / "edit_sessions.json").write_text("{")
    counts = import_editing("magicbrush", root, tmp_path / "out", CONFIG)
    dropped = {"broken_turn_order": 1, "no_instruction": 1, "missing_file": 2, "damaged_annotation": 2}
    assert counts == {"in": 7, "kept": 1, "dropped": dict(sorted(dropped.items()))}


def test_each_broken_line_has_its_reason(tmp_path: Path) -> None:
    root = write_lines(tmp_path / "in", [session(number, 2) for number in range(1, 8)], folder="data")
    path = root / "annotations" / "split_0001.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines() if line]
    lines[0]["instruction_4"] = "too late"
    del lines[1]["instruction_2"]
    del lines[2]["edit_image_1"]
    lines[3]["source_image"] = "/etc/hostname"
    lines[4]["edit_image_2"] = "x" * 5000
    (root / "data" / lines[5]["edit_image_1"]).write_bytes(b"GIF89a")
    path.write_text("\n".join([*map(json.dumps, lines), '{"source_image": ', "[]"]))
    counts = import_editing("seed-data-edit", root, tmp_path / "out", CONFIG)
    dropped = {"broken_turn_order": 1, "no_instruction": 1, "missing_file": 3}
    dropped |= {"damaged_picture": 1, "damaged_annotation": 2}
    assert counts == {"in": 9, "kept": 1, "dropped": dict(sorted(dropped.items()))}


@pytest.mark.parametrize("layout", ["magicbrush", "seed-data-edit"])
def test_a_folder_of_something_else_is_an_error_that_says_so(tmp_path: Path, layout: str) -> None:
    with pytest.raises(VisavisError, match="holds no"):
        import_editing(layout, tmp_path, tmp_path / "out", CONFIG)


def test_an_unknown_layout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match="layout is 'magic'"):
        import_editing("magic", tmp_path, tmp_path / "out", CONFIG)


def test_only_broken_chats_make_an_empty_data_set(tmp_path: Path) -> None:
    write_tables(tmp_path / "in", [without(session(1, 1), 1, instruction="")], parts=1)
    counts = import_editing("magicbrush", tmp_path / "in", tmp_path / "out", CONFIG)
    assert counts == {"in": 1, "kept": 0, "dropped": {"no_instruction": 1}}
    assert list(read_samples(tmp_path / "out")) == []


def test_an_editing_chat_is_laid_out_with_its_source_read_and_its_targets_written(tmp_path: Path) -> None:
    import_editing("magicbrush", write_tables(tmp_path / "in", [session(1, 3)]), tmp_path / "out", CONFIG)
    (sample,) = read_samples(tmp_path / "out")
    template = Template(build_tokenizer([RESPONSE, "edit 1 2 3 of"], 64), 64)
    layout = lay_out(template.segments(sample["turns"]), template)
    written = [picture for picture in range(4) if (layout.write == 64 * picture).any()]
    read = [picture for picture in range(4) if (layout.read == 64 * picture).any()]
    assert (written, read) == ([1, 2, 3], [0, 1, 2])
