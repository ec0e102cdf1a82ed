"""Ordinary and odd clips: the right pictures, upright, in the right size, from the right places."""

import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from odd_clips import FPS, GOP, HEIGHT, WIDTH, drawn, encode, lying, set_matrix

from visavis.data.video.decode import Clip, DecodeJob, Rejected, read_clip
from visavis.data.video.video_file import VideoFile


def read(path: Path, start: float = 0.0, end: float | None = None, samples: int = 6) -> Clip | Rejected:
    return read_clip(DecodeJob(str(path), 0.1, 10**7, samples, 27.0, start, end))


def clip_of(path: Path, start: float = 0.0, end: float | None = None) -> Clip:
    clip = read(path, start, end)
    assert isinstance(clip, Clip), clip
    return clip


def alike(one: np.ndarray, two: np.ndarray, tolerance: float = 4.0) -> bool:
    return one.shape == two.shape and float(np.abs(one.astype(float) - two).mean()) < tolerance


def all_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


MATRICES = [
    (1, 0, 0, 1),
    (0, 1, -1, 0),
    (-1, 0, 0, -1),
    (0, -1, 1, 0),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, -1, -1, 0),
]


@pytest.mark.parametrize("matrix", MATRICES)
def test_turned_and_mirrored_clips_are_set_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = encode(tmp_path / "a.mp4", 48, lambda i, n: lying(drawn(i, n), *matrix), options=GOP)
    set_matrix(path, *matrix)
    clip = clip_of(path)
    assert alike(clip.first, drawn(0, 48))
    assert alike(clip.last, drawn(47, 48))


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(4, 3), (256, 128)), (Fraction(1, 2), (192, 256))])
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    def squeezed(index: int, count: int) -> np.ndarray:
        picture = drawn(index, count, *size)
        return cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)

    clip = clip_of(encode(tmp_path / "a.mp4", 48, squeezed, options=GOP, aspect=aspect))
    assert clip.first.shape == (size[1], size[0], 3)
    assert alike(clip.first, drawn(0, 48, *size), 5)
    assert alike(clip.last, drawn(47, 48, *size), 5)


def test_a_turned_clip_of_oblong_pixels(tmp_path: Path) -> None:
    def stored(index: int, count: int) -> np.ndarray:
        picture = lying(drawn(index, count, 128, 256), 0, 1, -1, 0)
        return cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)

    path = encode(tmp_path / "a.mp4", 48, stored, options=GOP, aspect=Fraction(4, 3))
    set_matrix(path, 0, 1, -1, 0)
    assert alike(clip_of(path).last, drawn(47, 48, 128, 256), 5)


def in_bursts(index: int) -> int:
    return index * 20 + index // 10 * 300


KINDS = {
    "one_group": ({}, 2.0),
    "open_groups_with_b_frames": (
        {"options": {**GOP, "bf": "3", "x264-params": "open-gop=1:scenecut=0"}},
        2.0,
    ),
    "without_key_frames": ({"options": {"x264-params": "intra-refresh=1"}}, 2.0),
    "ten_bits": ({"options": GOP, "pixels": "yuv420p10le"}, 2.0),
    "hevc_ten_bits": (
        {
            "codec": "libx265",
            "pixels": "yuv420p10le",
            "options": {"x265-params": "keyint=12:log-level=none:pools=none"},
        },
        2.0,
    ),
    "odd_size": (
        {"options": GOP, "pixels": "yuv444p", "picture": lambda i, n: drawn(i, n, WIDTH - 1, HEIGHT - 1)},
        2.0,
    ),
    "full_range_422": (
        {"options": {"q": "3"}, "codec": "mjpeg", "pixels": "yuvj422p", "container": "mov"},
        2.0,
    ),
    "in_bursts": ({"options": GOP, "milliseconds": in_bursts}, 2.16),
    "in_bursts_matroska": ({"options": GOP, "milliseconds": in_bursts, "container": "matroska"}, 2.16),
    "starts_late": ({"options": GOP, "milliseconds": lambda i: 10_000 + 40 * i}, 1.92),
    "starts_late_matroska": (
        {"options": GOP, "milliseconds": lambda i: 10_000 + 40 * i, "container": "matroska"},
        1.92,
    ),
    "starts_late_mpegts": (
        {"options": GOP, "milliseconds": lambda i: 10_000 + 40 * i, "container": "mpegts"},
        1.92,
    ),
    "no_length": ({"options": GOP, "container": "matroska", "live": True}, 2.0),
    "fragments": ({"options": GOP, "muxer": {"movflags": "frag_keyframe+empty_moov"}}, 2.0),
    "avi": ({"codec": "mpeg4", "options": {**GOP, "b": "3000000"}, "container": "avi"}, 2.0),
    "vp9": (
        {
            "codec": "libvpx-vp9",
            "options": {**GOP, "cpu-used": "8", "deadline": "realtime", "b": "2000000"},
            "container": "webm",
        },
        2.0,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [48, 120])
def test_first_and_last_are_those_of_a_full_decode(tmp_path: Path, kind: str, frames: int) -> None:
    settings, seconds = KINDS[kind]
    path = encode(tmp_path / "a", frames, **settings)
    pictures = all_frames(path)
    assert len(pictures) == frames
    clip = clip_of(path)
    np.testing.assert_array_equal(clip.first, pictures[0])
    np.testing.assert_array_equal(clip.last, pictures[-1])
    draw = settings.get("picture", drawn)
    assert alike(clip.first, draw(0, frames), 6)
    assert alike(clip.last, draw(frames - 1, frames), 6)
    if frames == 48:
        assert clip.seconds == pytest.approx(seconds, abs=0.05)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.5, 1.5), (4.25, 9.75), (7.0, None)])
def test_a_part_of_a_file_is_a_clip(tmp_path: Path, container: str, start: float, end: float | None) -> None:
    path = encode(tmp_path / "a", 10 * FPS, options={"g": "24", "bf": "2"}, container=container)
    pictures = all_frames(path)
    clip = clip_of(path, start, end)
    stop = 10.0 if end is None else end
    np.testing.assert_array_equal(clip.first, pictures[round(start * FPS)])
    np.testing.assert_array_equal(clip.last, pictures[round(stop * FPS) - 1])
    assert clip.seconds == pytest.approx(stop - start, abs=0.01)


def test_parts_meet_without_gap_or_overlap(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", 48, options=GOP)
    pictures = all_frames(path)
    one, two = clip_of(path, 0, 17 / FPS), clip_of(path, 17 / FPS)
    np.testing.assert_array_equal(one.last, pictures[16])
    np.testing.assert_array_equal(two.first, pictures[17])
    assert one.seconds + two.seconds == pytest.approx(2, abs=0.01)


def test_a_part_beyond_the_end_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", 48, options=GOP)
    result = read(path, 5.0, 6.0)
    assert isinstance(result, Rejected) and result.reason == "truncated"
    result = read(path, 0.5, 0.55)
    assert isinstance(result, Rejected) and result.reason == "too_short"


def shots(*parts: tuple[int, int]):
    """Draws shots of the given lengths in frames and shades of gray, with the disc in front."""
    shades = [shade for length, shade in parts for _ in range(length)]

    def draw(index: int, count: int) -> np.ndarray:
        picture = drawn(index, count)
        picture[(picture == 90).all(-1)] = (shades[index], 255 - shades[index], shades[index] // 2)
        return picture

    return sum(length for length, _ in parts), draw


@pytest.mark.parametrize("group", ["6", "24", "1000"])
def test_cuts_are_found_wherever_the_key_frames_are(tmp_path: Path, group: str) -> None:
    options = {"g": group, "x264-params": "scenecut=0"}
    count, draw = shots((101, 30), (139, 220))
    result = read(encode(tmp_path / "a.mp4", count, draw, options=options))
    assert isinstance(result, Rejected) and result.reason == "cut"
    assert result.detail["cut_after_seconds"] == pytest.approx(100 / FPS, abs=0.02)
    # There and back again: first and last frame are of one shot.
    count, draw = shots((90, 30), (72, 220), (78, 30))
    result = read(encode(tmp_path / "b.mp4", count, draw, options=options))
    assert isinstance(result, Rejected) and result.reason == "cut"
    count, draw = shots((240, 30))
    assert isinstance(read(encode(tmp_path / "c.mp4", count, draw, options=options)), Clip)


def test_a_cut_outside_of_the_part_is_none_of_its_business(tmp_path: Path) -> None:
    count, draw = shots((101, 30), (139, 220))
    path = encode(tmp_path / "a.mp4", count, draw, options={"g": "24"})
    clip_of(path, 0, 101 / FPS)
    clip_of(path, 101 / FPS)
    assert isinstance(read(path, 100 / FPS), Rejected)


def test_slow_change_is_no_cut(tmp_path: Path) -> None:
    def fading(index: int, count: int) -> np.ndarray:
        return np.clip(drawn(index, count).astype(int) + 120 * index // count, 0, 255).astype(np.uint8)

    clip_of(encode(tmp_path / "a.mp4", 240, fading, options={"g": "24"}))


def test_long_clips_take_hardly_longer_than_short_ones(tmp_path: Path) -> None:
    short = encode(tmp_path / "a.mp4", 10 * FPS, options={"g": "24"})
    long = encode(tmp_path / "b.mp4", 100 * FPS, options={"g": "24"})
    spent = {}
    for path in (short, long):
        clip_of(path)
        began = time.process_time()
        for _ in range(5):
            clip_of(path)
        spent[path] = time.process_time() - began
    assert spent[long] < 4 * spent[short]


@pytest.mark.parametrize(("group", "most"), [("24", 60), ("240", 300)])
def test_only_what_is_needed_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, most: int
) -> None:
    path = encode(tmp_path / "a.mp4", 20 * FPS, options={"g": group, "x264-params": "scenecut=0"})
    decoded = []

    def counting(self: VideoFile, packet: av.Packet | None) -> list[av.VideoFrame]:
        decoded.append(packet)
        return decode(self, packet)

    decode = VideoFile.decode
    monkeypatch.setattr(VideoFile, "decode", counting)
    clip_of(path)
    assert len(decoded) < most


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_nothing_stays_open(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", 48, options=GOP)
    clip_of(path)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        clip_of(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
