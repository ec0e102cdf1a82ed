"""Curation of what is no plain folder: buckets with faults, long videos, and items that were forgotten."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
from disc_world import Disc, DiscFaces, backdrop, write_clip
from film_world import STARTS, write_film
from s3_server import BUCKET, FaultyProxy

from visavis.data.config import BucketConfig, CurateConfig
from visavis.data.curation.clips import DOWNLOADS, curate
from visavis.data.intake.listing import list_items
from visavis.data.ledger import read_ledger
from visavis.files import read_jsonl, sha256_file, write_jsonl

LIMITS = BucketConfig(attempts=2, connect_timeout_s=2, read_timeout_s=1)
CONFIG = CurateConfig(workers=0, buckets=LIMITS)
HUES = [("red", "green"), ("blue", "pink"), ("cyan", "yellow")]


def clips(folder: Path) -> Path:
    for index, (one, two) in enumerate(HUES):
        write_clip(folder / f"{index}.mp4", [Disc(one, 60), Disc(two, 125)])
    (folder / "pictures").mkdir()
    cv2.imwrite(str(folder / "pictures" / "p.png"), backdrop(90))
    return folder


def upload(folder: Path, bucket: Any) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            bucket.upload_file(str(path), f"some clips/{path.relative_to(folder)}")


def test_a_bucket_gives_what_a_folder_gives_and_faults_are_rows(
    tmp_path: Path, s3_bucket: Any, s3_proxy: FaultyProxy
) -> None:
    folder = clips(tmp_path / "clips")
    upload(folder, s3_bucket)
    local = curate(folder, tmp_path / "local", CONFIG, DiscFaces())
    remote = curate(f"s3://{BUCKET}/some clips", tmp_path / "remote", CONFIG, DiscFaces())
    assert remote == local == {"in": 3, "kept": 3, "dropped": {}}
    for name in ("frames", "pictures"):
        assert {p.name: sha256_file(p) for p in (tmp_path / "local" / name).iterdir()} == {
            p.name: sha256_file(p) for p in (tmp_path / "remote" / name).iterdir()
        }
    assert not (tmp_path / "remote" / DOWNLOADS).exists()

    s3_proxy.fail("1.mp4", *["error"] * 8)
    broken = curate(f"s3://{BUCKET}/some clips", tmp_path / "broken", CONFIG, DiscFaces())
    assert broken["in"] == 3 and broken["kept"] == 2
    (row,) = [row for row in read_ledger(tmp_path / "broken" / "ledger.jsonl") if row.status == "dropped"]
    assert row.reason.startswith("download_")
    assert row.detail["source_uri"].endswith("1.mp4")


def test_scenes_of_a_film_are_items_of_one_recording(tmp_path: Path) -> None:
    write_film(tmp_path / "films" / "film.mp4")
    config = CurateConfig(workers=0, split_over_seconds=3)
    counts = curate(tmp_path / "films", tmp_path / "out", config, DiscFaces())
    assert counts == {"in": 4, "kept": 3, "dropped": {"scene_too_short": 1}}
    pairs = read_jsonl(tmp_path / "out" / "pairs.jsonl")
    assert {pair["recording"] for pair in pairs} == {"film.mp4"}
    assert len({pair["clip_id"] for pair in pairs}) == 3
    assert abs(pairs[0]["seconds"] - STARTS[1]) < 0.1
    whole = curate(tmp_path / "films", tmp_path / "whole", CONFIG, DiscFaces())
    assert whole["dropped"] == {"cut": 1}


def test_what_was_forgotten_does_not_come_back(tmp_path: Path) -> None:
    folder = clips(tmp_path / "clips")
    unwanted = (sha256_file(folder / "1.mp4"), sha256_file(folder / "pictures" / "p.png"))
    config = CurateConfig(workers=0, forgotten=unwanted)
    counts = curate(folder, tmp_path / "out", config, DiscFaces())
    assert counts == {"in": 3, "kept": 2, "dropped": {"forgotten": 1}}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["pictures"]["dropped"] == {"forgotten": 1}
    assert not any(path.name.startswith(unwanted[0]) for path in (tmp_path / "out").rglob("*"))


def test_neither_copy_nor_near_copy_of_what_was_forgotten_comes_in_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    one, two = HUES[0]
    write_clip(folder / "a.mp4", [Disc(one, 60), Disc(two, 125)])
    shutil.copy(folder / "a.mp4", folder / "b_copy.mp4")
    write_clip(folder / "c_near.mp4", [Disc(one, 61, 61), Disc(two, 126, 61)], crf=26)
    config = CurateConfig(workers=0, forgotten=(sha256_file(folder / "a.mp4"),))
    counts = curate(folder, tmp_path / "out", config, DiscFaces())
    assert counts == {"in": 3, "kept": 0, "dropped": {"duplicate": 1, "forgotten": 1, "near_duplicate": 1}}
    assert not (tmp_path / "out" / "frames").exists() or not any(
        path.name.startswith(config.forgotten[0]) for path in (tmp_path / "out" / "frames").iterdir()
    )


def test_a_forgotten_film_is_not_opened_whatever_its_scenes_are(tmp_path: Path) -> None:
    write_film(tmp_path / "films" / "film.mp4")
    for seconds in (3.0, 6.0):
        config = CurateConfig(workers=0, split_over_seconds=seconds, forgotten=("film.mp4",))
        counts = curate(tmp_path / "films", tmp_path / f"out{seconds}", config, DiscFaces())
        assert set(counts["dropped"]) == {"forgotten"} and counts["kept"] == 0


def test_a_name_that_no_file_can_have_is_listed_and_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    write_clip(folder / "a.mp4", [Disc("red", 60), Disc("green", 125)])
    write_jsonl(folder / "clips.jsonl", [{"file": "a.mp4"}, {"file": "x" * 300 + ".mp4"}])
    assert len(list_items(folder).hashed()) == 2
    counts = curate(folder, tmp_path / "out", CONFIG, DiscFaces())
    assert counts["kept"] == 1 and counts["in"] == 2
