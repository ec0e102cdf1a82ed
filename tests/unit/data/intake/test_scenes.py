import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from disc_world import FPS, discs_in
from film_world import SCENES, STARTS, write_film
from s3_server import BUCKET, FaultyProxy

from visavis.data.config import BucketConfig, CurateConfig
from visavis.data.intake.scenes import split_scenes, split_sources
from visavis.data.intake.sources import Source, list_clips
from visavis.data.video.decode import Clip, DecodeJob, read_clip

CONFIG = CurateConfig(workers=0, split_over_seconds=3, buckets=BucketConfig(attempts=1))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", movflags="faststart")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_scenes_begin_at_the_cuts_and_follow_each_other(tmp_path: Path, suffix: str) -> None:
    spans = split_scenes(write_film(tmp_path / f"film{suffix}"), CONFIG)
    assert np.allclose(spans, list(pairwise(STARTS)), atol=0.002)
    assert all(one[1] == two[0] for one, two in pairwise(spans))


def test_what_is_not_long_or_shows_one_scene_stays_whole(film: Path, tmp_path: Path) -> None:
    assert split_scenes(film, CurateConfig()) == []
    assert split_scenes(film, CurateConfig(split_over_seconds=6)) == []
    assert split_scenes(write_film(tmp_path / "one.mp4", [(100, 60, SCENES[0][2])]), CONFIG) == []
    assert split_scenes(film, CurateConfig(split_over_seconds=3, max_pixels=1000)) == []


def test_a_change_of_the_picture_size_ends_a_scene(tmp_path: Path) -> None:
    whole = b""
    for number, side in enumerate((128, 192)):
        with av.open(str(tmp_path / f"{number}.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = side, 128, "yuv420p"
            for index in range(48):
                frame = av.VideoFrame.from_ndarray(np.full((128, side, 3), 90, np.uint8), format="rgb24")
                frame.pts = index + 48 * number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        whole += (tmp_path / f"{number}.ts").read_bytes()
    (tmp_path / "both.ts").write_bytes(whole)
    spans = split_scenes(tmp_path / "both.ts", CONFIG)
    assert np.allclose(spans, [(0, 2), (2, 4)], atol=0.1)


def test_each_scene_is_an_item_of_the_same_recording(film: Path, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"licence": "MIT", "consent": True}
    item = Source("film.mp4", film, "https://example.org/film", **facts)
    steps = []
    found = split_sources([item], tmp_path, CONFIG, lambda *step: steps.append(step))
    assert [each.ref for each in found] == [
        "film.mp4#t=0.000,1.500",
        "film.mp4#t=1.500,1.625",
        "film.mp4#t=1.625,4.125",
        "film.mp4#t=4.125,5.125",
    ]
    assert [each.problem for each in found] == [None, "scene_too_short", None, None]
    assert [each.path for each in found] == [film, None, film, film]
    assert found[2].uri == "https://example.org/film#t=1.625,4.125" and found[2].span == (1.625, 4.125)
    assert {(each.licence, each.consent, each.recording) for each in found} == {("MIT", True, "film.mp4")}
    assert steps == [(1, 1)]
    assert {each.recording for each in split_sources([replace(item, recording="7")], tmp_path, CONFIG)} == {
        "7"
    }
    assert split_sources([item], tmp_path, CurateConfig()) == [item]
    assert split_sources(found, tmp_path, CONFIG) == found, "scenes are not split again"


def test_a_scene_is_read_as_a_clip_of_its_own(film: Path, tmp_path: Path) -> None:
    for item, (_, _, discs) in zip(
        split_sources([Source("f", film, "f")], tmp_path, CONFIG), SCENES, strict=True
    ):
        if item.span is None or item.problem:
            continue
        start, end = item.span
        clip = read_clip(DecodeJob(str(film), 0.2, 10**7, 6, 27.0, start_seconds=start, end_seconds=end))
        assert isinstance(clip, Clip), clip
        assert clip.seconds == pytest.approx(end - start, abs=0.01)
        for frame in (clip.first, clip.last):
            assert {hue for hue, *_ in discs_in(frame)} == {disc.hue for disc in discs}


def test_what_may_not_be_used_is_not_opened(film: Path, tmp_path: Path) -> None:
    items = [
        Source("a", film, "a", consent=False),
        Source("b", None, "b", problem="outside_source"),
        Source("c", film, "c", licence="secret"),
    ]
    config = CONFIG.model_copy(update={"licences": ("MIT", None)})
    assert split_sources(items, tmp_path, config) == items


def test_only_the_file_at_fault_is_lost(film: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("#EXTM3U\nfilm.mp4\n")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "film.mp4").symlink_to(film)
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    (tmp_path / "empty.mp4").touch()
    items = list_clips(tmp_path)
    found = split_sources(items, tmp_path, CONFIG.model_copy(update={"workers": 1}))
    assert len(found) == len(items) - 1 + len(SCENES)
    assert [item for item in found if item.span is None] == [item for item in items if item.ref != "film.mp4"]
    slow = CONFIG.model_copy(update={"workers": 1, "split_timeout_s": 0.001})
    (item,) = split_sources([Source("film.mp4", film, "f")], tmp_path, slow)
    assert item.problem == "split_timeout"


def test_damaged_films_end_in_scenes_or_none_and_never_in_a_crash(film: Path, tmp_path: Path) -> None:
    whole, path = film.read_bytes(), tmp_path / "damaged.mp4"
    rng = random.Random(4)
    damaged = [whole[: len(whole) * tenth // 10] for tenth in range(1, 10)]
    for _ in range(30):
        flipped = bytearray(whole)
        for _ in range(8):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    counts = []
    for data in damaged:
        path.write_bytes(data)
        found = split_sources([Source("d", path, "d")], tmp_path, CONFIG)
        spans = [item.span for item in found if item.span]
        assert len(found) == max(len(spans), 1)
        assert all(0 <= begin < end for begin, end in spans)
        assert all(one[1] == two[0] for one, two in pairwise(spans))
        counts.append(len(spans))
    assert 0 in counts and max(counts) >= len(SCENES)


def test_a_film_in_a_bucket_is_split_and_not_kept(
    s3_bucket: Any, s3_proxy: FaultyProxy, film: Path, tmp_path: Path
) -> None:
    s3_bucket.upload_file(str(film), "film.mp4")
    s3_bucket.put_object(Key="lost.mp4", Body=b"lost")
    s3_proxy.fail("lost.mp4", "error")
    folder = tmp_path / "downloads"
    *scenes, lost = split_sources(list_clips(f"s3://{BUCKET}", CONFIG.buckets), folder, CONFIG)
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert lost.problem == "download_failed"
    assert [item.remote is None for item in scenes] == [False, True, False, False]
    for item in scenes:
        if not item.problem:
            with item.opened(folder, CONFIG.buckets) as path:
                assert path.read_bytes() == film.read_bytes()
