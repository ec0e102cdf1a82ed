"""`visavis curate` as a user calls it: parts side by side, a data set, and only new work the second time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from visavis.data.published.shards import read_index
from visavis.files import read_json, sha256_file

ROOT = Path(__file__).parents[2]
VISAVIS = str(Path(sys.executable).with_name("visavis"))


def visavis(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(
        [VISAVIS, *map(str, arguments)],
        cwd=ROOT,
        env={**environment, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


def statuses(runs: Path) -> dict[str, str]:
    return {row["step"]: row["status"] for row in read_json(runs / "latest" / "timings.json")["steps"]}


def shards(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.tar"))}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "clips"
    done = visavis("storybook", "render", folder, "--count", "16", "--seed", "3", "--pictures", "4")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_curate_makes_a_data_set_in_parts_and_reuses_the_parts(clips: Path, tmp_path: Path) -> None:
    source, runs = tmp_path / "source", tmp_path / "runs"
    shutil.copytree(clips, source)
    (source / "clips.jsonl").unlink(missing_ok=True)
    command = ("curate", "--source", source, "--runs", runs, "--out")
    done = visavis(*command, tmp_path / "data", "curate.part_items=7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Funnel: in = kept + dropped at every step" in done.stdout
    assert "viewer.html" in done.stdout
    funnel = read_json(runs / "latest" / "funnel.json")
    assert funnel["holds"]
    parts = [name for name in statuses(runs) if name.startswith("curate_part_")]
    assert len(parts) == 4, "16 clips and 4 pictures, 7 a part"
    whole = next(row for row in funnel["steps"] if row["step"] == "curate_clips")
    assert whole["in"] == 16 == whole["kept"] + sum(whole["dropped"].values())
    assert {row["shard"] for row in read_index(tmp_path / "data")} == set(shards(tmp_path / "data"))

    checked = visavis("data", "check", tmp_path / "data")
    assert checked.returncode == 0, checked.stdout + checked.stderr

    one = visavis(*command, tmp_path / "one", "curate.part_items=1000")
    assert one.returncode == 0, one.stdout + one.stderr
    assert shards(tmp_path / "one") == shards(tmp_path / "data"), "parts do not show in the result"

    fresh = next(source.rglob("*.mp4"))
    shutil.copy(fresh, fresh.with_name("zzz.mp4"))
    again = visavis(*command, tmp_path / "data", "curate.part_items=7")
    assert again.returncode == 0, again.stdout + again.stderr
    assert statuses(runs)["curate_part_0"] == "reused", (
        "a new clip at the end leaves the first part as it was"
    )


def test_curate_replaces_no_folder_that_is_not_a_data_set(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    done = visavis("curate", "--source", clips, "--out", tmp_path / "mine", "--runs", tmp_path / "runs")
    assert done.returncode != 0
    assert "which holds something else than a data set" in done.stderr + done.stdout
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_an_empty_source_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = visavis(
        "curate", "--source", tmp_path / "empty", "--out", tmp_path / "x", "--runs", tmp_path / "r"
    )
    assert done.returncode != 0
    assert "holds no clips" in done.stderr + done.stdout
    assert not (tmp_path / "x").exists()
