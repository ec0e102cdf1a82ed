"""The data set as others meet it: its manifest, its validation, and readers that know nothing of us."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disc_dataset import CONFIG, make_dataset
from PIL import Image

from visavis.data.published.dataset import Damage, digest_of, read_dataset, verify, write_dataset
from visavis.data.published.origins import mask_of, outline, read_origins
from visavis.data.published.schema import schema_faults
from visavis.data.published.shards import read_groups, read_index, read_samples, write_index
from visavis.data.published.validation import Report, validate
from visavis.errors import VisavisError
from visavis.files import read_json, read_jsonl, sha256_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def built(made: dict[str, Path]) -> Path:
    return made["build_conversations"]


@pytest.fixture
def damaged(built: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(built, tmp_path / "damaged"))


def rewritten(path: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Writes a shard anew with the JSON of its samples changed; None takes a sample out."""
    groups = list(read_groups(path))
    with tarfile.open(path, "w") as tar:
        for key, members in groups:
            record = change(json.loads(members["json"]))
            if record is None:
                continue
            members["json"] = json.dumps(record).encode()
            add(tar, key, members)


def add(tar: tarfile.TarFile, key: str, members: dict[str, bytes]) -> None:
    for extension, data in members.items():
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def problems(report: Report) -> dict[str, int]:
    return {check.name: check.found for check in report.problems}


def test_the_manifest_lists_every_file_and_equal_files_give_an_equal_digest(built: Path) -> None:
    content = read_dataset(built)
    there = {path.name for path in built.iterdir()} - {"dataset.json"}
    assert set(content["files"]) == there >= {"index.parquet", "card.md", "viewer.html", "validation.json"}
    for name, entry in content["files"].items():
        assert entry == {"sha256": sha256_file(built / name), "bytes": (built / name).stat().st_size}
    hashes = {name: entry["sha256"] for name, entry in content["files"].items()}
    assert content["digest"] == digest_of(hashes) != digest_of({**hashes, "card.md": "0"})
    rows = read_index(built)
    assert content["counts"]["samples"] == len(rows) == sum(content["counts"]["splits"].values())
    assert content["index"]["columns"]["images"] == "list<element: string>"
    assert verify(built) == []


def test_verify_names_each_file_that_is_not_as_it_was(damaged: Path, tmp_path: Path) -> None:
    (damaged / "train-000000.tar").unlink()
    (damaged / "train-000099.tar").write_bytes(b"new")
    data = bytearray((damaged / "index.parquet").read_bytes())
    data[40] ^= 1
    (damaged / "index.parquet").write_bytes(data)
    with (damaged / "card.md").open("a") as card:
        card.write("more")
    assert verify(damaged) == [
        Damage("card.md", "size"),
        Damage("index.parquet", "content"),
        Damage("train-000000.tar", "missing"),
        Damage("train-000099.tar", "unlisted"),
    ]
    with pytest.raises(VisavisError, match=r"dataset\.json is missing"):
        verify(tmp_path)
    (damaged / "dataset.json").write_text("[]")
    with pytest.raises(VisavisError, match="lists no files"):
        verify(damaged)


def test_hugging_face_datasets_reads_shards_and_index(built: Path, tmp_path: Path) -> None:
    import datasets

    features = datasets.Features.from_dict(json.loads((built / "dataset.json").read_text())["features"])
    cache = str(tmp_path / "cache")
    files = {split: str(built / f"{split}-*.tar") for split in ("train", "val", "test")}
    loaded = datasets.load_dataset("webdataset", data_files=files, features=features, cache_dir=cache)
    ours = {sample["id"]: sample for sample in read_samples(built)}
    assert sum(len(split) for split in loaded.values()) == len(ours)
    for row in loaded["train"].select(range(8)):
        sample = ours[row["__key__"]]
        assert row["json"]["turns"] == sample["turns"] and row["json"]["tags"] == sample["tags"]
        for number in range(len(sample["images"])):
            np.testing.assert_array_equal(np.asarray(row[f"{number}.png"]), sample["images"][number])
    streamed = datasets.load_dataset("webdataset", data_files=files, features=features, streaming=True)
    assert len(list(streamed["test"])) == len(loaded["test"])
    index = datasets.load_dataset(
        "parquet", data_files=str(built / "index.parquet"), split="train", cache_dir=cache
    )
    assert index.to_list() == read_index(built)


def test_hugging_face_datasets_reads_the_folder_by_its_readme(built: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(built), cache_dir=str(tmp_path))
    assert {name: len(rows) for name, rows in loaded.items()} == read_dataset(built)["counts"]["splits"]
    assert (built / "README.md").read_text().endswith((built / "card.md").read_text())
    sample = next(iter(read_samples(built, split="val")))
    assert loaded["val"][0]["json"]["turns"] == sample["turns"]


def test_webdataset_reads_all_shards(built: Path) -> None:
    import webdataset

    shards = [str(path) for path in sorted(built.glob("*.tar"))]
    rows = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    ours = {sample["id"]: sample for sample in read_samples(built)}
    assert {row["__key__"] for row in rows} == set(ours) and len(rows) == len(ours)
    for row in rows:
        assert row["json"]["turns"] == ours[row["__key__"]]["turns"]
        np.testing.assert_array_equal(row["0.png"], ours[row["__key__"]]["images"][0])


def test_a_good_data_set_passes_and_its_report_lies_beside_it(built: Path) -> None:
    report = validate(built)
    assert report.passed and not any(check.found for check in report.checks)
    assert report.to_dict() == read_json(built / "validation.json")
    balance = report.figures["balance"]
    rounds = {split: figures["sets"].get("rounds", 0) for split, figures in balance.items()}
    assert sum(rounds.values()) == sum(row["set"] == "rounds" for row in read_index(built))
    for split, figures in balance.items():
        assert sum(figures["styles"].values()) == sum(figures["asked_first"].values()) == rounds[split]
    assert "The data set passed." in (built / "card.md").read_text()


def test_a_missing_shard_is_found(damaged: Path) -> None:
    gone = sorted(damaged.glob("test-*.tar"))[0]
    lost = sum(row["shard"] == gone.name for row in read_index(damaged))
    gone.unlink()
    report = validate(damaged)
    assert report.check("shards").examples == [f"{gone.name} is missing"]
    assert report.check("files").examples == [f"{gone.name} is missing"]
    assert report.check("counts").found == lost + 3


def test_a_flipped_byte_anywhere_in_a_shard_is_found(damaged: Path) -> None:
    shard = sorted(damaged.glob("val-*.tar"))[0]
    good = shard.read_bytes()
    png = good.index(b"IDAT") + 40
    for place, names in {png: {"pictures"}, 5: {"shards"}, good.index(b'"caption"') + 2: {"schema"}}.items():
        data = bytearray(good)
        data[place] ^= 0x10
        shard.write_bytes(data)
        assert names <= set(problems(validate(damaged))) >= {"files"}, place
        write_dataset(damaged, CONFIG)  # even if somebody signed it anew
        assert names <= set(problems(validate(damaged))), place


def test_a_half_shard_is_found(damaged: Path) -> None:
    shard = sorted(damaged.glob("train-*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:9000])
    assert {"shards", "counts", "files"} <= set(problems(validate(damaged)))


def test_a_doubled_sample_is_found(damaged: Path) -> None:
    shard = sorted(damaged.glob("train-*.tar"))[0]
    groups = list(read_groups(shard))
    with tarfile.open(shard, "w") as tar:
        for key, members in [*groups, groups[-1]]:
            add(tar, key, members)
    write_dataset(damaged, CONFIG)
    report = validate(damaged)
    assert report.check("twice").examples == [f"{groups[-1][0]}: 2 times in the shards"]
    assert set(problems(report)) == {"twice", "counts"}


def test_a_renamed_copy_of_a_sample_is_a_warning(damaged: Path) -> None:
    shard = sorted(damaged.glob("train-*.tar"))[0]
    key, members = next(read_groups(shard))
    record = json.loads(members["json"]) | {"id": "copy"}
    with tarfile.open(shard, "a") as tar:
        add(tar, "copy", {**members, "json": json.dumps(record).encode()})
    row = next(row for row in read_index(damaged) if row["id"] == key)
    write_index(damaged, [*read_index(damaged), row | {"id": "copy"}])
    write_dataset(damaged, CONFIG)
    report = validate(damaged)
    assert report.passed and report.check("equal_samples").examples == [f"{key} and copy"]
    assert report.figures["duplicates"]["equal_samples"] > 0


def test_a_person_moved_to_another_split_is_found(damaged: Path) -> None:
    """One sample changes its split in shard, index and manifest alike: only the leak gives it away."""
    moved = next(row for row in read_index(damaged) if row["set"] == "pair" and row["split"] == "train")
    target = sorted(damaged.glob("test-*.tar"))[0]
    members = dict(read_groups(damaged / moved["shard"]))[moved["id"]]
    record = json.loads(members["json"]) | {"split": "test"}
    rewritten(damaged / moved["shard"], lambda record: None if record["id"] == moved["id"] else record)
    with tarfile.open(target, "a") as tar:
        add(tar, moved["id"], {**members, "json": json.dumps(record).encode()})
    changed = {"split": "test", "shard": target.name}
    write_index(damaged, [row | (changed if row["id"] == moved["id"] else {}) for row in read_index(damaged)])
    write_dataset(damaged, CONFIG)
    assert {name: found for name, found in problems(validate(damaged)).items() if found} == {
        "people_in_two_splits": 1,
        "clips_in_two_splits": 1,
        "recordings_in_two_splits": 1,
        "pictures_in_two_splits": 2,
    }


def test_an_index_that_lies_is_found(damaged: Path) -> None:
    rows = read_index(damaged)
    rows[0]["caption"], rows[1]["people"] = "something else", ["somebody"]
    write_index(damaged, [*rows[:-1], {**rows[-1], "id": "nobody"}])
    found = problems(validate(damaged))
    assert (found["rows"], found["counts"], found["files"]) == (2, 2, 1)
    (damaged / "index.parquet").write_bytes(b"PAR1 no, not really PAR1")
    assert "index" in problems(validate(damaged))


def test_a_foreign_data_set_is_judged_without_our_other_files(damaged: Path) -> None:
    for path in damaged.iterdir():
        if path.suffix not in (".tar", ".parquet"):
            path.unlink()
    assert problems(validate(damaged)) == {"files": 1}
    with pytest.raises(VisavisError, match="is not a folder"):
        validate(damaged / "nowhere")


def test_a_sample_must_have_the_right_form(built: Path) -> None:
    record = json.loads(next(read_groups(built / "train-000000.tar"))[1]["json"])
    key = record["id"]
    assert list(schema_faults(record, key)) == []
    user, reply = record["turns"]
    image = {"type": "image", "image": 7}
    for wrong, words in (
        ([], "not an object"),
        ({**record, "more": 1}, "fields more"),
        ({**record, "people": "Ann"}, "fields people"),
        ({**record, "id": "x"}, "id is x"),
        ({**record, "split": "dev"}, "split is 'dev'"),
        ({**record, "people": [1]}, "people holds something else"),
        ({**record, "turns": [user]}, "1 turns"),
        ({**record, "turns": [reply, user]}, "turn 0 is not one of the user"),
        ({**record, "turns": [user, {**reply, "content": [image]}]}, "turn 1 holds neither"),
        ({**record, "images": [*record["images"], "0"]}, "1 pictures are in no turn"),
    ):
        assert any(words in fault for fault in schema_faults(wrong, key)), words


def test_origins_tell_where_each_item_came_from_and_where_its_faces_are(built: Path) -> None:
    origins = {row["item"]: row for row in read_origins(built)}
    index = read_index(built)
    assert {row["clip_id"] for row in index} <= set(origins)
    for row in index:
        origin = origins[row["clip_id"]]
        assert origin["split"] == row["split"] and set(row["people"]) <= set(origin["people"])
        if row["set"] == "rounds":
            frame = origin["frames"][row["images"][0]]
            assert (origin["licence"], origin["consent"]) == ("CC0", True)
            for (x0, y0, x1, y1), points in zip(frame["boxes"], frame["outlines"], strict=True):
                assert all(x0 - 2 <= x <= x1 + 2 and y0 - 2 <= y <= y1 + 2 for x, y in points)


def test_outlines_are_those_of_the_stored_masks(made: dict[str, Path]) -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:12, 8:25] = True
    face = read_jsonl(made["segment_faces"] / "faces.jsonl")[0]["first"]["mask"]
    assert mask_of(face["size"], face["counts"]).shape == tuple(face["size"])
    assert sorted(outline(mask)) == [[8, 5], [8, 11], [24, 5], [24, 11]]
    assert outline(np.zeros((4, 4), bool)) == []


def test_a_picture_that_cannot_be_decoded_is_found(damaged: Path) -> None:
    shard = sorted(damaged.glob("train-*.tar"))[0]
    groups = list(read_groups(shard))
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    groups[0][1]["0.png"] = b"no picture"
    groups[1][1]["0.png"] = buffer.getvalue()
    del groups[2][1]["0.png"]
    with tarfile.open(shard, "w") as tar:
        for key, members in groups:
            add(tar, key, members)
    examples = validate(damaged).check("pictures").examples
    assert [example.rpartition(": ")[2] for example in examples] == [
        "0.png cannot be decoded",
        "0.png has another digest",
        "0.png is missing",
    ]
