"""A folder that is kept equal to a prefix of a bucket."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from visavis import mirror, s3
from visavis.errors import TransientError
from visavis.mirror import followed, mirrored

if TYPE_CHECKING:
    from s3_server import FaultyProxy


@pytest.fixture
def run(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(s3.SCRATCH, str(tmp_path / "scratch"))
    monkeypatch.setattr(mirror, "_SECONDS", 0.2)
    return f"s3://{bucket.name}/runs/one"


def content(uri: str) -> dict[str, bytes]:
    return dict(s3.read_all(uri, "*")) | dict(s3.read_all(uri, "*/*"))


def test_a_folder_of_this_machine_is_used_as_it_is(tmp_path: Path) -> None:
    with mirrored(str(tmp_path), "*") as folder, followed(str(tmp_path), tmp_path / "copy", ""):
        assert folder == tmp_path
    assert not (tmp_path / "copy").exists()


def test_what_is_written_changed_and_removed_is_so_in_the_bucket(run: str) -> None:
    s3.write(f"{run}/failures/tune.json", b"old")
    s3.write(f"{run}/failures/other.json", b"another step's")
    with mirrored(run, "*/tune.*", ["failures/tune.json"]) as folder:
        assert (folder / "failures" / "tune.json").read_text() == "old"
        (folder / "failures" / "tune.json").unlink()
        (folder / "timings").mkdir()
        (folder / "timings" / "tune.json").write_text("running")
        (folder / "timings" / "tune.tmp").write_text("half")
        (folder / "timings" / "tune_more.json").write_text("not ours")
        deadline = time.monotonic() + 20
        while s3.read(f"{run}/timings/tune.json") is None:  # long before the end
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (folder / "timings" / "tune.json").write_text("ended")
    assert content(run) == {"timings/tune.json": b"ended", "failures/other.json": b"another step's"}


def test_the_last_words_of_a_failure_arrive(run: str) -> None:
    with pytest.raises(RuntimeError), mirrored(run, "*") as folder:
        (folder / "failure.json").write_text("why")
        raise RuntimeError
    assert content(run) == {"failure.json": b"why"}


def test_a_store_that_is_away_ends_a_good_block_and_hides_no_error(run: str, s3_proxy: FaultyProxy) -> None:
    patient = s3.client
    patch = pytest.MonkeyPatch()
    with pytest.raises(TransientError, match="did not answer"), mirrored(run, "*", []) as folder:
        (folder / "a.json").write_text("a")
        s3_proxy.fail_share(1.0)
        patch.setattr(s3, "client", lambda: patient(1))
    with pytest.raises(RuntimeError, match="the real one"), mirrored(run, "*", []):
        raise RuntimeError("the real one")
    patch.undo()


def test_a_follower_sees_what_happens_elsewhere(run: str, tmp_path: Path) -> None:
    s3.write(f"{run}/timings/a.json", b"1")
    s3.write(f"{run}/tracking/a.jsonl", b"not for people")
    with followed(run, tmp_path / "copy", "tracking/*"):
        s3.write(f"{run}/timings/a.json", b"2")
        s3.write(f"{run}/report.html", b"page")
    found = {path.name: path.read_text() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert found == {"a.json": "2", "report.html": "page"}
