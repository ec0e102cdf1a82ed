"""The result of curation depends neither on how the work was shared out nor on who was killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from disc_world import Disc, DiscFaces, backdrop, make_source, write_clip

from visavis.data.config import CurateConfig
from visavis.data.curation.clips import ITEMS, JOURNAL, curate, curate_part, merge
from visavis.data.intake.listing import Listing, list_items
from visavis.data.journal import JournalRows
from visavis.data.ledger import read_ledger
from visavis.files import sha256_file

CONFIG = CurateConfig(workers=0, dropped_thumbnails=2)
PAIR = [Disc("red", 60), Disc("green", 125)]


def tree(folder: Path) -> dict[str, str]:
    found = {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    for own in (JOURNAL, ITEMS):
        found.pop(own, None)
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, copies, near-copies and copies of what is dropped, spread so that every cut parts some of them."""
    root = tmp_path_factory.mktemp("source")
    hues = [("red", "green"), ("blue", "pink"), ("cyan", "yellow")]
    for index, (one, two) in enumerate(hues):
        write_clip(root / f"{index}0.mp4", [Disc(one, 60), Disc(two, 125)])
        write_clip(root / f"{index}1_alone.mp4", [Disc(one, 90)], frames=20 + index)
    write_clip(root / "03_shifted.mp4", [Disc("red", 61, 61), Disc("green", 126, 61)], crf=26)
    write_clip(root / "23_shifted.mp4", [Disc("blue", 61, 61), Disc("pink", 126, 61)], crf=26)
    shutil.copy(root / "00.mp4", root / "12_same.mp4")
    shutil.copy(root / "00.mp4", root / "24_same.mp4")
    shutil.copy(root / "01_alone.mp4", root / "13_same_alone.mp4")
    shutil.copy(root / "03_shifted.mp4", root / "25_same_shifted.mp4")
    (root / "14_text.mp4").write_text("text")
    (root / "26_text.mp4").write_text("text")
    (root / "pictures").mkdir()
    for index in range(3):
        cv2.imwrite(str(root / "pictures" / f"{index}.png"), backdrop(40 + index))
    shutil.copy(root / "pictures" / "0.png", root / "pictures" / "same.png")
    return root


def in_parts(source: Path, out: Path, size: int, seed: int) -> dict:
    """Judges the parts in a random order, each through a saved listing, and merges them."""
    parts = list_items(source).hashed().parts(size)
    order = list(range(len(parts)))
    random.Random(seed).shuffle(order)
    for number in order:
        parts[number].save(out / f"{number}.jsonl")
        curate_part(Listing.load(out / f"{number}.jsonl"), out / str(number), CONFIG, DiscFaces())
    return merge([out / str(number) for number in range(len(parts))], out / "merged", CONFIG)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
def test_the_result_is_the_same_however_the_work_is_shared_out(
    source: Path, tmp_path: Path, size: int
) -> None:
    expected = curate(source, tmp_path / "whole", CONFIG, DiscFaces())
    assert expected["in"] == expected["kept"] + sum(expected["dropped"].values())
    assert expected["dropped"] == {"duplicate": 4, "near_duplicate": 2, "not_a_video": 2, "one_person": 3}
    assert in_parts(source, tmp_path / "parts", size, size) == expected
    assert tree(tmp_path / "parts" / "merged") == tree(tmp_path / "whole")


def test_merging_again_changes_nothing(source: Path, tmp_path: Path) -> None:
    counts = curate(source, tmp_path / "out", CONFIG, DiscFaces())
    before = tree(tmp_path / "out")
    assert curate(source, tmp_path / "out", CONFIG, DiscFaces()) == counts
    assert tree(tmp_path / "out") == before


def test_parts_hold_every_item_once_and_in_order(source: Path) -> None:
    whole = list_items(source)
    for size in range(1, len(whole) + 2):
        parts = whole.parts(size)
        assert all(0 < len(part) <= size for part in parts)
        assert [item for part in parts for item in part.clips] == list(whole.clips)
        assert [item for part in parts for item in part.pictures] == list(whole.pictures)
    assert [len(part) for part in Listing([], []).parts(4)] == [0]


def test_the_digest_of_a_listing_follows_the_bytes(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 2)
    before = list_items(source).hashed().digest()
    assert list_items(source).hashed().digest() == before
    clip = next(item.path for item in list_items(source).clips if item.path)
    clip.write_bytes(clip.read_bytes() + b"\0")
    assert list_items(source).hashed().digest() != before


def test_a_worker_killed_in_the_middle_of_a_part_goes_on_without_doing_anything_twice(
    source: Path, tmp_path: Path
) -> None:
    expected = curate(source, tmp_path / "whole", CONFIG, DiscFaces())
    out = tmp_path / "killed"
    code = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "from disc_world import DiscFaces\n"
        "from visavis.data.curation.clips import curate; from visavis.data.config import CurateConfig\n"
        "curate(Path(sys.argv[1]), Path(sys.argv[2]), CurateConfig(workers=0, dropped_thumbnails=2),\n"
        "       DiscFaces(), lambda done, total: time.sleep(0.2))\n"
    )
    command = [sys.executable, "-c", code, str(source), str(out), str(Path(__file__).parents[1])]
    worker = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    journal = out / JOURNAL
    deadline = time.monotonic() + 120
    while not journal.is_file() or journal.read_bytes().count(b"\n") < 6:
        assert worker.poll() is None and time.monotonic() < deadline, "the worker did not get so far"
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    with JournalRows(journal) as rows:
        finished = len(rows)
    faces = DiscFaces()
    seen = []
    assert curate(source, out, CONFIG, faces, lambda done, total: seen.append(done)) == expected
    assert tree(out) == tree(tmp_path / "whole")
    assert len(seen) <= len(list_items(source)) - finished + len(list_items(source).pictures)
    rows = read_ledger(out / "ledger.jsonl")
    assert len({row.item_id for row in rows}) == len(rows) == expected["in"]
