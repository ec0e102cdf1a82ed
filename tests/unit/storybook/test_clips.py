"""A collection has its shares, is the same again, and keeps its truth aside."""

import json
from collections import Counter

import av
import numpy as np
import pytest

from visavis.errors import VisavisError
from visavis.files import read_jsonl, sha256_file
from visavis.storybook.clips import mask_to_runs, render_clips, runs_to_mask
from visavis.storybook.plan import SHARES, ClipScript, plan_clips, recordings


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    out = tmp_path_factory.mktemp("collection")
    return out, render_clips(out, 16, seed=7, count_pictures=4)


def decoded(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_shares_add_to_one_and_are_kept():
    assert sum(SHARES.values()) == pytest.approx(1)
    kinds = Counter(script.kind for script in plan_clips(200, 0))
    assert kinds == {kind: round(200 * share) for kind, share in SHARES.items()}


def test_duplicates_follow_the_pair_they_repeat():
    for seed in range(20):
        scripts = plan_clips(20, seed)
        repeats = [script for script in scripts if script.kind == "duplicate"]
        assert repeats
        for script in repeats:
            assert scripts[script.duplicate_of].kind == "pair"
            assert script.duplicate_of < script.index


def test_people_meet_in_small_circles():
    scripts = [script for script in plan_clips(400, 1) if script.kind != "duplicate"]
    uses = Counter(person for script in scripts for person in script.people)
    assert set(uses.values()) == {1, 2, 3}
    assert all(len(set(script.people)) == len(script.people) for script in scripts)
    circles: list[set[int]] = []
    for script in scripts:
        met = [circle for circle in circles if circle & set(script.people)]
        circles = [c for c in circles if c not in met] + [set(script.people).union(*met)]
    assert max(len(circle) for circle in circles) < 0.05 * len(uses)


def test_nobody_is_in_two_recordings_and_none_is_large():
    scripts = plan_clips(600, 2)
    names = recordings(scripts)
    homes: dict[int, set[str]] = {}
    for script, name in zip(scripts, names, strict=True):
        for person in script.people:
            homes.setdefault(person, set()).add(name)
    assert all(len(found) == 1 for found in homes.values())
    sizes = Counter(names)
    assert max(sizes.values()) <= 12 and len(sizes) > 200


def test_a_clip_that_joins_two_circles_makes_them_one_recording():
    people = [(1, 2), (3, 4), (), (2, 5), (5, 3), (6,)]
    scripts = [ClipScript(9, index, "pair", who) for index, who in enumerate(people)]
    names = recordings(scripts)
    assert names == ("9-000000", "9-000000", "9-000002", "9-000000", "9-000000", "9-000005")


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"pair": 0.5}, "add to 0.5"),
        ({"pairs": 1.0}, "unknown kind 'pairs'"),
        ({"duplicate": 1.0}, "no pair to repeat"),
        ({"pair": 1.5, "one": -0.5}, "shares.one is -0.5"),
    ],
)
def test_impossible_shares_are_refused(shares, message):
    with pytest.raises(VisavisError, match=message):
        plan_clips(20, 0, shares)


def test_every_kind_is_there_and_bad_files_are_bad(collection):
    out, manifest = collection
    assert set(manifest["kinds"]) == set(SHARES)
    for row in read_jsonl(out / "truth/clips.jsonl"):
        path = out / row["file"]
        if row["kind"] in ("truncated", "not_video"):
            try:
                assert len(decoded(path)) < 26
            except (av.FFmpegError, IndexError):
                continue
        else:
            frames = decoded(path)
            assert len(frames) == row["frames"]
            assert frames[0].shape == (128, 192, 3)


def test_the_public_manifest_tells_nothing_of_the_truth(collection):
    out, _ = collection
    rows = read_jsonl(out / "clips.jsonl")
    assert len(rows) == 16
    for row in rows:
        assert set(row) == {"id", "file", "uri", "licence", "consent", "recording"}
        assert row["id"] == sha256_file(out / row["file"])
    assert len(list((out / "pictures").glob("*.png"))) == 4


def test_the_truth_names_the_same_people_on_the_same_sides(collection):
    out, _ = collection
    pairs = [row for row in read_jsonl(out / "truth/clips.jsonl") if row["kind"] == "pair"]
    assert pairs
    known = {row["person"] for row in read_jsonl(out / "truth/people.jsonl")}
    for row in pairs:
        sides = [[face["person"] for face in row[frame]["faces"]] for frame in ("first", "last")]
        assert sides[0] == sides[1]
        assert sorted(sides[0]) == sorted(row["people"])
        assert set(row["people"]) <= known
        assert all(runs_to_mask(face["mask"]).any() for face in row["last"]["faces"])
        boxes = [[face["box"] for face in row[frame]["faces"]] for frame in ("first", "last")]
        assert boxes[0] != boxes[1]


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(collection, tmp_path):
    out, manifest = collection

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        assert total == 20
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        render_clips(tmp_path, 16, seed=7, count_pictures=4, progress=kill)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").iterdir()}
    next(iter(kept)).write_bytes(b"damaged")
    assert render_clips(tmp_path, 16, seed=7, count_pictures=4) == manifest
    untouched = [path for path, at in list(kept.items())[1:] if path.stat().st_mtime_ns == at]
    assert len(untouched) == len(kept) - 1
    for row in read_jsonl(out / "clips.jsonl"):
        assert sha256_file(tmp_path / row["file"]) == row["id"]


def test_a_folder_with_another_collection_is_refused(collection):
    out, _ = collection
    with pytest.raises(VisavisError, match="seed is 7, not 8"):
        render_clips(out, 16, seed=8, count_pictures=4)


def test_masks_survive_their_run_lengths():
    rng = np.random.default_rng(0)
    for mask in (rng.random((9, 7)) < 0.5, np.zeros((3, 4), bool), np.ones((3, 4), bool)):
        runs = json.loads(json.dumps(mask_to_runs(mask)))
        assert np.array_equal(runs_to_mask(runs), mask)
