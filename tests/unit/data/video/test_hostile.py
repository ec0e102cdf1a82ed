"""Files that nobody means well with: each ends as a clip or with a reason of its own, and the run goes on."""

import json
import random
import shutil
import time
import wave
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from disc_world import Disc, DiscFaces, backdrop, write_clip
from odd_clips import GOP, drawn, encode, set_length, set_matroska_length

from visavis.data.config import CurateConfig
from visavis.data.curation.clips import curate
from visavis.data.ledger import read_ledger
from visavis.data.video.decode import Clip, DecodeJob, Rejected, read_clip
from visavis.data.video.guard import Outcome, guarded_map

REASONS = {"not_a_video", "unknown_codec", "too_large", "truncated", "damaged", "too_short", "cut"}
MUTATIONS = 240
PAIR = [Disc("red", 60), Disc("green", 125)]


def job(path: Path, max_pixels: int = 8192 * 4320) -> DecodeJob:
    return DecodeJob(str(path), 0.2, max_pixels, 6, 27.0)


def reason(path: Path) -> str | None:
    result = read_clip(job(path))
    return result.reason if isinstance(result, Rejected) else None


def reasons(out: Path) -> dict[str, str | None]:
    return {row.detail["source_uri"]: row.reason for row in read_ledger(out / "ledger.jsonl")}


CONTAINERS = {
    "mp4": {},
    "mp4_index_first": {"muxer": {"movflags": "faststart"}},
    "matroska": {"container": "matroska"},
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A clip of 1.25 seconds with three key frames, in each container."""
    root = tmp_path_factory.mktemp("good")
    return {
        name: encode(root / name, 30, options=GOP, **settings).read_bytes()
        for name, settings in CONTAINERS.items()
    }


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_cut_off_at_any_tenth_is_truncated(
    good: dict[str, bytes], container: str, tmp_path: Path
) -> None:
    whole, path = good[container], tmp_path / "a.mp4"
    found = []
    for tenth in range(11):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        found.append(reason(path))
    assert found == ["empty_file", *["truncated"] * 9, None]


def mutated(whole: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    changed = bytearray(whole)
    for _ in range(rng.choice((1, 4, 16, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_flipped_bits_end_as_a_clip_or_a_known_reason_and_leave_no_memory_behind(
    good: dict[str, bytes], tmp_path: Path
) -> None:
    wholes = list(good.values())
    for seed in range(MUTATIONS):
        (tmp_path / f"{seed}.mp4").write_bytes(mutated(wholes[seed % len(wholes)], seed))
    paths = [str(tmp_path / f"{seed}.mp4") for seed in range(MUTATIONS)]
    outcomes: list[Outcome] = list(guarded_map("hostile_work:read", paths, 1, 20.0, memory_mb=1024))
    assert {outcome.failure for outcome in outcomes} <= {None, "memory"}
    # A flipped bit in a length can ask for more memory than anything has; that is rare, or it would be ours.
    assert sum(outcome.failure == "memory" for outcome in outcomes) < MUTATIONS // 20
    found = {outcome.value[0] for outcome in outcomes if outcome.failure is None}
    assert found <= REASONS | {"clip"}
    assert len(found) > 3
    (weighed,) = guarded_map("hostile_work:weigh_rounds", [paths], 1, 120.0)
    once, twice, thrice = weighed.value
    assert thrice < max(once, twice) + 16


def test_mutated_clips_do_not_stop_a_run(good: dict[str, bytes], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for seed in range(30):
        (source / f"{seed:02d}.mp4").write_bytes(mutated(good["mp4"], 1000 + seed))
    write_clip(source / "z_good.mp4", PAIR)
    counts = curate(source, tmp_path / "out", CurateConfig(workers=1, timeout_s=20), DiscFaces())
    assert counts["in"] == counts["kept"] + sum(counts["dropped"].values()) == 31
    assert reasons(tmp_path / "out")["z_good.mp4"] is None


def test_other_files_named_as_clips_get_their_reason_and_the_run_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a_zero.mp4").write_bytes(b"")
    (source / "b_text.mp4").write_text("Dear diary,\n" * 200)
    picture = drawn(0, 1)
    for name, kind in (("c_png", ".png"), ("d_jpeg", ".jpg")):
        (source / f"{name}.mp4").write_bytes(cv2.imencode(kind, picture)[1].tobytes())
    with wave.open(str(source / "e_wav.mp4"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(b"\0\1" * 16000)
    (source / "f_json.mp4").write_text(json.dumps({"a": list(range(500))}))
    write_clip(source / "g_one_frame.mp4", PAIR, frames=1)
    (source / "h_noise.mp4").write_bytes(random.Random(0).randbytes(20_000))
    (source / "i_only_a_header.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom")
    write_clip(source / "j_good.mp4", PAIR)
    curate(source, tmp_path / "out", CurateConfig(workers=1, timeout_s=20), DiscFaces())
    assert reasons(tmp_path / "out") == {
        "a_zero.mp4": "empty_file",
        "b_text.mp4": "not_a_video",
        "c_png.mp4": "not_a_video",
        "d_jpeg.mp4": "not_a_video",
        "e_wav.mp4": "not_a_video",
        "f_json.mp4": "not_a_video",
        "g_one_frame.mp4": "too_short",
        "h_noise.mp4": "not_a_video",
        "i_only_a_header.mp4": "truncated",
        "j_good.mp4": None,
    }


def test_songs_are_no_videos_even_with_a_cover(tmp_path: Path) -> None:
    for name, cover in (("plain.mp4", False), ("cover.mp4", True)):
        with av.open(str(tmp_path / name), "w", format="mp4") as output:
            sound = output.add_stream("aac", rate=16000, layout="mono")
            still = output.add_stream("mjpeg", rate=1) if cover else None
            if still is not None:
                still.width, still.height, still.pix_fmt = 192, 128, "yuvj420p"
                still.disposition = Disposition.attached_pic
                output.mux(still.encode(av.VideoFrame.from_ndarray(drawn(0, 1), format="rgb24")))
                output.mux(still.encode())
            for index in range(20):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                samples.sample_rate, samples.pts = 16000, index * 1024
                output.mux(sound.encode(samples))
            output.mux(sound.encode())
        assert reason(tmp_path / name) == "not_a_video"


def test_a_two_hour_header_on_a_second_of_video_is_seen_through_at_once(
    good: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    began = time.monotonic()
    for container in ("mp4", "mp4_index_first"):
        # The index of an MP4 lists its frames, so a length that contradicts it deceives nobody.
        path.write_bytes(set_length(good[container], 7200))
        clip = read_clip(job(path))
        assert isinstance(clip, Clip)
        assert clip.seconds == pytest.approx(1.25, abs=0.05)
    path.write_bytes(set_matroska_length(good["matroska"], 7200))
    refused = read_clip(job(path))
    assert isinstance(refused, Rejected) and refused.reason == "truncated"
    assert refused.detail["declared_seconds"] == pytest.approx(7200)
    assert refused.detail["seconds"] == pytest.approx(1.25, abs=0.05)
    assert time.monotonic() - began < 5


def test_8k_frames_are_too_large_or_read_within_the_memory_limit(tmp_path: Path) -> None:
    def huge(index: int, count: int) -> np.ndarray:
        return cv2.resize(drawn(index, count), (7680, 4320), interpolation=cv2.INTER_NEAREST)

    large = encode(tmp_path / "8k.mp4", 6, huge, options={"preset": "ultrafast", "x264-params": "ref=1"})
    small = write_clip(tmp_path / "small.mp4", PAIR)
    assert reason(large) is None
    refused = read_clip(job(large, 3840 * 2160))
    assert isinstance(refused, Rejected) and refused.reason == "too_large"
    jobs = [job(small), job(large), job(small)]
    default = CurateConfig().memory_mb
    outcomes = list(guarded_map("visavis.data.video.decode:read_clip", jobs, 1, 120.0, default))
    assert [outcome.failure for outcome in outcomes] == [None] * 3
    assert outcomes[1].value.last.shape == (4320, 7680, 3)
    if Path("/proc/self/status").is_file():
        for memory_mb in (64, 200):
            outcomes = list(guarded_map("visavis.data.video.decode:read_clip", jobs, 1, 120.0, memory_mb))
            assert [outcome.failure for outcome in outcomes] == [None, "memory", None]


def test_links_that_bite_their_tail(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "deeper").mkdir(parents=True)
    write_clip(source / "deep" / "good.mp4", PAIR)
    (source / "deep" / "deeper" / "up").symlink_to(source)
    (source / "deep" / "itself").symlink_to(source / "deep" / "itself")
    (source / "one.mp4").symlink_to("two.mp4")
    (source / "two.mp4").symlink_to("one.mp4")
    (source / "folder.mp4").symlink_to(source / "deep")
    curate(source, tmp_path / "out", CurateConfig(workers=0), DiscFaces())
    found = reasons(tmp_path / "out")
    assert found.pop("deep/good.mp4") is None
    assert found.pop("one.mp4") == found.pop("two.mp4") == "unreadable"
    assert set(found) <= {"folder.mp4"}


NAMES = [
    "with spaces .mp4",
    'it\'s "quoted".mp4',
    "two\nlines\tand a tab.mp4",
    "-rf.mp4",
    "$(touch gone);`id`.mp4",
    "%s%n{0}\\.mp4",
    "Ольга и 花子 👯 שלום.mp4",
    "concat:a|b.mp4",
    "http:.mp4",
    "#?&.mp4",
]


def test_names_are_only_names(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    hues = [("red", "green"), ("red", "blue"), ("cyan", "pink"), ("yellow", "blue"), ("yellow", "pink")]
    for index, name in enumerate(NAMES):
        one, two = hues[index % len(hues)]
        ground = backdrop(70 + 90 * (index % 2), seed=index)
        write_clip(tmp_path / "x.mp4", [Disc(one, 60), Disc(two, 125)], ground=ground)
        shutil.move(tmp_path / "x.mp4", source / name)
    curate(source, tmp_path / "out", CurateConfig(workers=1, timeout_s=30), DiscFaces())
    assert reasons(tmp_path / "out") == dict.fromkeys(NAMES)


def test_a_worker_killed_from_outside_in_the_middle_of_a_run_costs_nothing(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{index}.mp4", PAIR, ground=backdrop(80 + index)) for index in range(3)]
    items = [str(clips[0]), f"kill once {clips[1]}", str(clips[2])]
    outcomes = list(guarded_map("hostile_work:read", items, 1, 30.0))
    assert [outcome.value[0] for outcome in outcomes] == ["clip"] * 3
    assert outcomes[0].value[1] != outcomes[1].value[1]
