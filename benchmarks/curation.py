"""How fast clips are read, against doing it the plain way, and whether memory stays flat over many of them.

    python benchmarks/curation.py                  # 40 clips of 10 s in 720p, and 5,000 tiny ones; minutes
    python benchmarks/curation.py --clips 8 --many 1000

Measured on the same H.264 clips of a moving scene of two discs, one key frame a second as phones write them,
every contender on one thread and in turn with the others:

    decode all       an OpenCV loop over every frame that keeps the first and the last
    bare decode      PyAV and nothing else: open, first frame, seek, on to the last frame
    ours             `read_clip`: hash, checks, first and last frame as RGB, and the look for cuts

The last line is one JSON object: `vs_decode_all` (clips per second of ours over decode all), `over_bare_decode`
(time of ours over bare decode), `two_workers` (speed of two guarded workers over one), `memory_growth` (peak
memory of curating 5,000 clips over that of 500; the sum of the run's own peak and its largest worker's).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from visavis.data.config import CurateConfig
from visavis.data.curation.clips import curate
from visavis.data.video.decode import Clip, DecodeJob, read_clip
from visavis.data.video.guard import guarded_map

Picture = NDArray[np.uint8]
BARS = {"vs_decode_all": 5.0, "over_bare_decode": 1.5, "two_workers": 1.7, "memory_growth": 1.1}
AT_LEAST = ("vs_decode_all", "two_workers")

_FPS, _SECONDS = 30, 10
_WIDTH, _HEIGHT = 1280, 720
_SCENES = 8
_NOISES = 7
_GUARDED_READS = 120
_ROUNDS = 3
_TINY_WIDTH, _TINY_HEIGHT, _TINY_FRAMES, _TINY_SCENES = 192, 128, 8, 20
_EMBEDDING = 512

console = Console(highlight=False)


def write_scene(path: Path, seed: int, width: int, height: int, frames: int) -> None:
    """Writes an H.264 clip of two discs that move in front of a textured ground, seen by a grainy camera.

    Args:
        path: File to write.
        seed: Of ground, grain and colours.
        width: Of the picture, px.
        height: Of the picture, px.
        frames: Length, at 30 frames per second.
    """
    rng = np.random.default_rng(seed)
    ground = cv2.resize(rng.integers(40, 200, (9, 16, 3), np.uint8), (width, height))
    grain = rng.normal(0, 3, (_NOISES, *ground.shape)).astype(np.int16)
    colours = rng.integers(60, 255, (2, 3)).tolist()
    with av.open(str(path), "w", format="mp4") as container:
        options = {"crf": "23", "preset": "veryfast", "g": str(_FPS), "sc_threshold": "0", "threads": "1"}
        stream = container.add_stream("libx264", rate=_FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            part = index / max(frames - 1, 1)
            image = ground.copy()
            for colour, place in zip(colours, (0.3 + 0.06 * part, 0.68 - 0.06 * part), strict=True):
                centre = (round(place * width), round((0.45 + 0.05 * part) * height))
                cv2.circle(image, centre, height // 6, colour, -1, cv2.LINE_AA)
            seen = np.clip(image + grain[index % _NOISES], 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(seen, format="rgb24")))
        container.mux(stream.encode())


def make_clips(folder: Path, count: int) -> list[Path]:
    """Writes the 10-second clips; a few scenes are encoded, and the others are links to them."""
    folder.mkdir(parents=True)
    paths = [folder / f"{index:03d}.mp4" for index in range(count)]
    for index, path in enumerate(track(paths, "10-second clips", console=console, transient=True)):
        if index < _SCENES:
            write_scene(path, index, _WIDTH, _HEIGHT, _FPS * _SECONDS)
        else:
            path.hardlink_to(paths[index % _SCENES])
    return paths


def make_tiny_clips(folder: Path, count: int) -> None:
    """Writes many small clips; no two have the same bytes, so none is dropped as a copy."""
    folder.mkdir(parents=True)
    scenes = []
    for seed in range(_TINY_SCENES):
        path = folder / "scene"
        write_scene(path, seed, _TINY_WIDTH, _TINY_HEIGHT, _TINY_FRAMES)
        scenes.append(path.read_bytes())
        path.unlink()
    for index in range(count):
        number = struct.pack(">I4sQ", 16, b"free", index)
        (folder / f"{index:05d}.mp4").write_bytes(scenes[index % _TINY_SCENES] + number)


def decode_all(path: Path) -> tuple[Picture, Picture]:
    """Decodes every frame with OpenCV; returns the first and the last."""
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    good, frame = video.read()
    first = last = frame
    while good:
        last = frame
        good, frame = video.read()
    video.release()
    return np.asarray(first, np.uint8), np.asarray(last, np.uint8)


def bare_decode(path: Path) -> tuple[av.VideoFrame, av.VideoFrame]:
    """Decodes the first frame and, from the last key frame on, the last one; returns both."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        first = last = next(container.decode(stream))
        container.seek(stream.duration or 0, stream=stream)
        for frame in container.decode(stream):
            last = frame
        return first, last


def job(path: Path) -> DecodeJob:
    """Returns what curation asks for, with its default settings."""
    limits = CurateConfig()
    return DecodeJob(
        str(path), limits.min_seconds, limits.max_pixels, limits.cut_samples, limits.cut_threshold
    )


def ours(path: Path) -> Clip:
    """Reads a clip as curation does."""
    clip = read_clip(job(path))
    if not isinstance(clip, Clip):
        raise AssertionError(f"{path.name} was rejected as {clip.reason}: {clip.detail}")
    return clip


def race(paths: Sequence[Path]) -> dict[str, float]:
    """Returns the median seconds per clip of each contender; all take each clip, in changing order."""
    contenders: list[tuple[str, Callable[[Path], Any]]] = [
        ("decode all", decode_all),
        ("bare decode", bare_decode),
        ("ours", ours),
    ]
    spent: dict[str, list[float]] = {name: [] for name, _ in contenders}
    for _, contender in contenders:
        contender(paths[0])
    for index, path in enumerate(track(paths, "one worker", console=console, transient=True)):
        turn = index % len(contenders)
        for name, contender in contenders[turn:] + contenders[:turn]:
            began = time.perf_counter()
            contender(path)
            spent[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in spent.items()}


def guarded_speed(paths: Sequence[Path], workers: int) -> float:
    """Returns clips per second through guarded workers, once they are warm."""
    limits = CurateConfig()
    warm = 4 * workers
    jobs = (job(paths[index % len(paths)]) for index in range(warm + _GUARDED_READS))
    outcomes = guarded_map(
        "visavis.data.video.decode:read_clip", jobs, workers, limits.timeout_s, limits.memory_mb
    )
    for _ in range(warm):
        next(outcomes)
    began = time.perf_counter()
    done = sum(outcome.failure is None for outcome in outcomes)
    return done / (time.perf_counter() - began)


def two_workers(paths: Sequence[Path]) -> tuple[float, float]:
    """Returns clips per second with one guarded worker and with two; medians of alternating rounds."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in track(range(_ROUNDS), "two workers", console=console, transient=True):
        for workers, measured in speeds.items():
            measured.append(guarded_speed(paths, workers))
    return statistics.median(speeds[1]), statistics.median(speeds[2])


class StandInFaces:
    """Stands for a face detector: sees two people at fixed places, ever others in each clip."""

    def __init__(self) -> None:
        self._calls = 0

    def get(self, img: Picture) -> list[Any]:
        """Returns two faces; two calls in a row, for first and last frame, show the same people."""
        rng = np.random.default_rng(self._calls // 2)
        self._calls += 1
        height, width = img.shape[:2]
        side = height / 3
        faces = []
        for centre in (0.34 * width, 0.64 * width):
            x, y = centre - side / 2, 0.48 * height - side / 2
            embedding = rng.normal(size=_EMBEDDING)
            corners = [(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)]
            faces.append(
                SimpleNamespace(
                    bbox=np.array([x, y, x + side, y + side], np.float32),
                    kps=np.array([[x + a * side, y + b * side] for a, b in corners]),
                    det_score=0.9,
                    normed_embedding=embedding / np.linalg.norm(embedding),
                )
            )
        return faces


def curate_and_weigh(folder: Path) -> dict[str, float]:
    """Curates `folder/source` into `folder/out`; returns what it took. For a process of its own.

    Returns:
        `peak_mib` (of this process and of its largest worker together), `seconds`, `in`, `kept`.
    """
    import resource

    began = time.perf_counter()
    counts = curate(folder / "source", folder / "out", CurateConfig(workers=1), StandInFaces())
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "peak_mib": sum(peaks) * unit / 2**20,
        "seconds": time.perf_counter() - began,
        "in": counts["in"],
        "kept": counts["kept"],
    }


def weighed(folder: Path, count: int) -> dict[str, float]:
    """Returns the figures of `curate_and_weigh` for so many tiny clips, from a fresh process."""
    make_tiny_clips(folder / "source", count)
    command = [sys.executable, __file__, "--weigh", str(folder)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def report(rows: Sequence[tuple[str, str]], ratios: dict[str, float]) -> None:
    """Prints what was measured, and the ratios beside their bars."""
    table = Table("", "measured", title="Curation")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    table = Table("ratio", "measured", "bar", "")
    for name, value in ratios.items():
        least = name in AT_LEAST
        held = value >= BARS[name] if least else value <= BARS[name]
        bar = f"{'≥' if least else '≤'} {BARS[name]:g}"
        table.add_row(name, f"{value:.2f}", bar, "holds" if held else "missed")
    console.print(table)
    load, cpus = os.getloadavg()[0], os.cpu_count()
    console.print(f"{cpus} CPUs; load over the last minute {load:.1f}, of which ours was up to 2")


def main() -> None:
    """Reads the arguments, prints the tables and, last, the ratios as JSON."""
    parser = argparse.ArgumentParser(description="Time the reading of clips, and weigh curation.")
    parser.add_argument("--clips", type=int, default=40, help="10-second clips that are read")
    parser.add_argument("--many", type=int, default=5000, help="tiny clips that are curated")
    parser.add_argument("--few", type=int, default=500, help="tiny clips whose memory those are held against")
    parser.add_argument("--weigh", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weigh is not None:
        print(json.dumps(curate_and_weigh(options.weigh)))
        return
    with tempfile.TemporaryDirectory(prefix="visavis-curation-") as name:
        folder = Path(name)
        paths = make_clips(folder / "clips", max(options.clips, 2))
        seconds = race(paths)
        one, two = two_workers(paths)
        with console.status("curating tiny clips"):
            few, many = (weighed(folder / str(count), count) for count in (options.few, options.many))
    ratios = {
        "vs_decode_all": round(seconds["decode all"] / seconds["ours"], 3),
        "over_bare_decode": round(seconds["ours"] / seconds["bare decode"], 3),
        "two_workers": round(two / one, 3),
        "memory_growth": round(many["peak_mib"] / few["peak_mib"], 3),
    }
    rows = [(name, f"{1e3 * value:.1f} ms a clip") for name, value in seconds.items()]
    rows += [("one guarded worker", f"{one:.1f} clips/s"), ("two guarded workers", f"{two:.1f} clips/s")]
    for figures in (few, many):
        title = f"curating {figures['in']:,} clips, {figures['kept']:,} kept"
        rows.append((title, f"{figures['peak_mib']:.0f} MiB, {figures['seconds']:.0f} s"))
    report(rows, ratios)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
