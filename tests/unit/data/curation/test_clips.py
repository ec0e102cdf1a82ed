import json
import os
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from disc_world import Disc, DiscFaces, backdrop, make_source, paint, write_clip

from visavis.data.curation.clips import CurateConfig, curate
from visavis.data.ledger import read_ledger
from visavis.data.video.decode import DecodeJob, Rejected, read_clip
from visavis.errors import VisavisError
from visavis.files import read_jsonl, sha256_file, write_jsonl

CONFIG = CurateConfig(workers=0)
PAIR = [Disc("red", 60), Disc("green", 125)]


def job(path: Path) -> DecodeJob:
    return DecodeJob(str(path), 0.2, 10**7, 6, 27.0)


def reasons(out: Path) -> dict[str, str | None]:
    return {Path(row.detail["source_uri"]).name: row.reason for row in read_ledger(out / "ledger.jsonl")}


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind that the world has been seen to hold."""
    root = tmp_path_factory.mktemp("kinds")
    write_clip(root / "a_pair.mp4", PAIR)
    write_clip(root / "b_one.mp4", [Disc("red", 90)])
    write_clip(root / "c_three.mp4", [Disc("red", 40), Disc("green", 95), Disc("blue", 150)])
    write_clip(root / "d_far.mp4", [Disc("red", 25), Disc("green", 170)])
    write_clip(root / "e_cut.mp4", PAIR, cut_to=(PAIR, backdrop(220, seed=9)))
    write_clip(root / "f_changed.mp4", PAIR, [Disc("red", 60), Disc("blue", 125)])
    write_clip(root / "g_alike.mp4", [Disc("red", 60), Disc("red", 125)])
    write_clip(root / "h_shifted_copy.mp4", [Disc("red", 61, 61), Disc("green", 126, 61)], crf=26)
    write_clip(
        root / "i_swapped.mp4", [Disc("blue", 60), Disc("pink", 125)], [Disc("blue", 64), Disc("pink", 120)]
    )
    write_clip(root / "j_short.mp4", PAIR, frames=2)
    shutil.copy(root / "a_pair.mp4", root / "k_same_bytes.mp4")
    whole = write_clip(root / "l_truncated.mp4", PAIR).read_bytes()
    (root / "l_truncated.mp4").write_bytes(whole[: len(whole) // 2])
    whole = write_clip(root / "m_truncated_faststart.mp4", PAIR, faststart=True).read_bytes()
    (root / "m_truncated_faststart.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    (root / "n_text.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")
    (root / "o_zero.mp4").write_bytes(b"")
    (root / "p_zero_again.mp4").write_bytes(b"")
    (root / "q_ünïcode 人🎬.mp4").write_bytes(
        write_clip(root / "x.mp4", [Disc("cyan", 60), Disc("pink", 125)]).read_bytes()
    )
    (root / "x.mp4").unlink()
    (root / "r_loop.mp4").symlink_to("r_loop.mp4")
    (root / "loop").symlink_to(root)
    (root / "s_gone.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(root / "t_pipe.mp4")
    (root / "u_header_only.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + os.urandom(4000))
    cv2.imwrite(str(root / "v.png"), backdrop(50))
    (root / "v.png").rename(root / "v_picture.mp4")
    return root


def test_every_kind_of_file_gets_its_own_reason_and_nothing_stops_the_run(
    kinds: Path, tmp_path: Path
) -> None:
    counts = curate(kinds, tmp_path / "out", CONFIG, DiscFaces())
    assert reasons(tmp_path / "out") == {
        "a_pair.mp4": None,
        "b_one.mp4": "one_person",
        "c_three.mp4": "three_people",
        "d_far.mp4": "too_far_apart",
        "e_cut.mp4": "cut",
        "f_changed.mp4": "identity_changed",
        "g_alike.mp4": "people_alike",
        "h_shifted_copy.mp4": "near_duplicate",
        "i_swapped.mp4": None,
        "j_short.mp4": "too_short",
        "k_same_bytes.mp4": "duplicate",
        "l_truncated.mp4": "truncated",
        "m_truncated_faststart.mp4": "truncated",
        "n_text.mp4": "not_a_video",
        "o_zero.mp4": "empty_file",
        "p_zero_again.mp4": "empty_file",
        "q_ünïcode 人🎬.mp4": None,
        "r_loop.mp4": "unreadable",
        "s_gone.mp4": "missing_file",
        "t_pipe.mp4": "not_a_file",
        "u_header_only.mp4": "truncated",
        "v_picture.mp4": "not_a_video",
    }
    assert counts["in"] == counts["kept"] + sum(counts["dropped"].values()) == 22
    rows = read_ledger(tmp_path / "out" / "ledger.jsonl")
    assert len({row.item_id for row in rows}) == len(rows)
    copy = next(row for row in rows if row.reason == "duplicate")
    assert copy.item_id == sha256_file(kinds / "a_pair.mp4") + "#2"


def test_pairs_hold_both_people_from_left_to_right_in_px_of_the_crop(kinds: Path, tmp_path: Path) -> None:
    curate(kinds, tmp_path / "out", CONFIG, DiscFaces())
    for pair in read_jsonl(tmp_path / "out" / "pairs.jsonl"):
        for name in ("first", "last"):
            image = cv2.imread(str(tmp_path / "out" / pair[name]))
            assert image.shape == (128, 128, 3)
            found = sorted(DiscFaces().get(image), key=lambda face: face.bbox[0])
            for person, face in zip(pair["people"], found, strict=True):
                np.testing.assert_allclose(person[f"{name}_box"], face.bbox, atol=1.5)
                assert np.dot(person["embedding"], face.normed_embedding) > 0.99
        assert pair["people"][0]["first_box"][0] < pair["people"][1]["first_box"][0]


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(kinds: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = curate(kinds, whole, CONFIG, DiscFaces())

    class Killed(BaseException):
        pass

    def stop_at(count: int):
        def progress(done: int, total: int) -> None:
            if done == count:
                raise Killed

        return progress

    for count in (3, 9, 17):
        with pytest.raises(Killed):
            curate(kinds, broken, CONFIG, DiscFaces(), stop_at(count))
    with (broken / "journal.jsonl").open("ab") as stream:
        stream.write(b'{"key": "half a li')
    last_faces = DiscFaces()
    assert curate(kinds, broken, CONFIG, last_faces) == expected
    assert tree(broken) == tree(whole)
    assert last_faces.calls <= 2, "finished clips are not looked at again"


def test_settings_cannot_be_mixed_in_one_folder(kinds: Path, tmp_path: Path) -> None:
    curate(kinds, tmp_path / "out", CONFIG, DiscFaces())
    with pytest.raises(VisavisError, match="other settings"):
        curate(kinds, tmp_path / "out", CurateConfig(workers=0, match_threshold=0.9), DiscFaces())


def test_guarded_workers_give_the_same_as_none(kinds: Path, tmp_path: Path) -> None:
    one = curate(kinds, tmp_path / "a", CONFIG, DiscFaces())
    two = curate(kinds, tmp_path / "b", CurateConfig(workers=2, timeout_s=30), DiscFaces())
    assert one == two
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_failing_detector_costs_one_clip(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 3)

    class Moody(DiscFaces):
        def get(self, img):
            if self.calls == 2:
                self.calls += 1
                raise RuntimeError("out of memory")
            return super().get(img)

    counts = curate(source, tmp_path / "out", CONFIG, Moody())
    assert counts == {"in": 3, "kept": 2, "dropped": {"detector_error": 1}}


def test_an_empty_folder_gives_empty_results_and_a_missing_one_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    counts = curate(tmp_path / "empty", tmp_path / "out", CONFIG, DiscFaces())
    assert counts == {"in": 0, "kept": 0, "dropped": {}}
    assert read_jsonl(tmp_path / "out" / "pairs.jsonl") == []
    assert read_ledger(tmp_path / "out" / "ledger.jsonl") == []
    with pytest.raises(VisavisError, match=r"clips\.source"):
        curate(tmp_path / "nowhere", tmp_path / "out2", CONFIG, DiscFaces())


def test_the_manifest_decides_what_is_used(tmp_path: Path) -> None:
    source = tmp_path / "source"
    hues = [("red", "green"), ("red", "blue"), ("cyan", "pink"), ("yellow", "blue")]
    for index, (one, two) in enumerate(hues):
        write_clip(source / f"{index}.mp4", [Disc(one, 60), Disc(two, 125)])
    write_clip(tmp_path / "secret.mp4", PAIR)
    rows = [
        {
            "file": "0.mp4",
            "licence": "CC0-1.0",
            "consent": True,
            "uri": "https://example.org/0",
            "recording": 7,
        },
        {"file": "1.mp4", "licence": "CC0-1.0", "consent": False},
        {"file": "2.mp4", "licence": "CC-BY-NC-4.0"},
        {"file": "../secret.mp4", "licence": "CC0-1.0"},
        {"file": str(tmp_path / "secret.mp4"), "licence": "CC0-1.0"},
    ]
    write_jsonl(source / "clips.jsonl", rows)
    counts = curate(source, tmp_path / "out", CurateConfig(workers=0, licences=("CC0-1.0",)), DiscFaces())
    dropped = {"no_consent": 1, "licence_refused": 1, "outside_source": 2}
    assert counts == {"in": 5, "kept": 1, "dropped": dropped}
    pair = read_jsonl(tmp_path / "out" / "pairs.jsonl")[0]
    assert (pair["source_uri"], pair["recording"]) == ("https://example.org/0", "7")


@pytest.mark.parametrize("line", ["{", "[]", '{"id": 1}', '{"file": ""}'])
def test_a_broken_manifest_names_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "clips.jsonl").write_text(json.dumps({"file": "a.mp4"}) + "\n" + line + "\n")
    with pytest.raises(VisavisError, match="line 2"):
        curate(tmp_path, tmp_path / "out", CONFIG, DiscFaces())


def test_pictures_are_squared_and_counted(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 1)
    shutil.copy(source / "pictures" / "0.png", source / "pictures" / "same.png")
    (source / "pictures" / "text.png").write_text("no picture")
    data = (source / "pictures" / "1.png").read_bytes()
    (source / "pictures" / "half.png").write_bytes(data[: len(data) // 2])
    people = paint([Disc("red", 60)], backdrop(90))
    cv2.imwrite(str(source / "pictures" / "person.png"), people[..., ::-1])
    curate(source, tmp_path / "out", CONFIG, DiscFaces())
    rows = read_ledger(tmp_path / "out" / "pictures_ledger.jsonl")
    assert Counter(row.reason for row in rows) == {None: 3, "duplicate": 1, "not_a_picture": 1, "damaged": 1}
    kept = read_jsonl(tmp_path / "out" / "pictures.jsonl")
    assert sorted(len(row["people"]) for row in kept) == [0, 0, 1]
    assert all(cv2.imread(str(tmp_path / "out" / row["file"])).shape == (128, 128, 3) for row in kept)


def test_long_clips_are_sought_not_decoded_through(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", PAIR, [Disc("red", 70), Disc("green", 140)], frames=24 * 20)
    clip = read_clip(job(path))
    assert not isinstance(clip, Rejected)
    assert clip.seconds == pytest.approx(20, abs=0.1)
    assert np.abs(clip.first - paint(PAIR, backdrop(90)).astype(float)).mean() < 2
    assert (
        DiscFaces().get(clip.last[..., ::-1])[0].bbox[0]
        > DiscFaces().get(clip.first[..., ::-1])[0].bbox[0] + 5
    )


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", PAIR)
    result = read_clip(DecodeJob(str(path), 0.2, 1000, 6, 27.0))
    assert isinstance(result, Rejected) and result.reason == "too_large"


def test_rendered_clips_end_as_their_kind_says(tmp_path: Path) -> None:
    """What can be told without faces, on clips of the storybook world: broken files and cuts."""
    from visavis.storybook import clips

    shares = {"pair": 0.4, "cut": 0.3, "truncated": 0.2, "not_video": 0.1}
    clips.render_clips(tmp_path / "source", 10, seed=5, shares=shares, count_pictures=0)
    curate(tmp_path / "source", tmp_path / "out", CONFIG, DiscFaces())
    kinds = {row["id"]: row["kind"] for row in read_jsonl(tmp_path / "source/truth/clips.jsonl")}
    expected = {"cut": "cut", "truncated": "truncated", "not_video": "not_a_video"}
    rows = read_ledger(tmp_path / "out" / "ledger.jsonl")
    assert len(rows) == 10
    for row in rows:
        kind = kinds[row.item_id]
        assert row.reason == expected.get(kind, row.reason)
        assert kind in expected or row.reason not in expected.values()
