"""Long videos are no clips but hold many: each scene between two cuts becomes an item of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import av
from av.video.reformatter import VideoReformatter

from visavis.data.config import CurateConfig
from visavis.data.intake.buckets import DownloadError
from visavis.data.intake.sources import Source, refusal
from visavis.data.video.cuts import shrunk
from visavis.data.video.decode import looks_like_video
from visavis.data.video.guard import Outcome, guarded_map
from visavis.data.video.upright import raise_if_memory
from visavis.data.video.video_file import NoDecoderError, NoVideoError, Shot, VideoFile

Span: TypeAlias = tuple[float, float]
"""Seconds from the first frame of a file: frames belong to it that begin at the first or later, before the second."""

_HEADER_BYTES = 400
_FAILURES = {"timeout": "split_timeout", "crashed": "decoder_crashed", "memory": "decoder_memory"}


@dataclass(frozen=True)
class SplitJob:
    """One item to look for scenes in; `folder` is for what is downloaded."""

    item: Source
    folder: Path
    config: CurateConfig


def split_sources(
    items: Sequence[Source],
    folder: Path,
    config: CurateConfig,
    progress: Callable[[int, int], None] | None = None,
) -> list[Source]:
    """Puts its scenes in the place of every video that is longer than `split_over_seconds`.

    A scene is named `<ref>#t=<begin>,<end>`, and its recording is the one that is stated for the file, or the file,
    so that all of them share a split. Scenes that are too short, and videos whose scenes could not be found, get a
    `problem`; what is refused is not opened, and what cannot be read at all stays as it is, for the decoder to judge.

    Args:
        items: Clips in the order of their source.
        folder: For what is downloaded; the caller removes it.
        config: Limits.
        progress: Called with the number of items done and in all.
    """
    if config.split_over_seconds is None:
        return list(items)
    outcomes = guarded_map(
        "visavis.data.intake.scenes:split_source",
        (SplitJob(item, folder, config) for item in items if _may_be_split(item, config)),
        config.workers,
        config.split_timeout_s,
        config.memory_mb,
    )
    found: list[Source] = []
    for done, item in enumerate(items, 1):
        found += _scenes(item, next(outcomes), config) if _may_be_split(item, config) else [item]
        if progress:
            progress(done, len(items))
    return found


def split_source(job: SplitJob) -> list[Span] | str:
    """Brings an item here if need be and looks for its scenes; this is what guarded workers call.

    Returns:
        What `split_scenes` returns, or the reason why the item could not be brought here.

    Raises:
        av.FFmpegError: If a frame cannot be used.
        MemoryError: If there is too little memory.
    """
    try:
        with job.item.opened(job.folder, job.config.buckets) as path:
            return split_scenes(path, job.config)
    except DownloadError as error:
        return error.reason


def split_scenes(path: Path, config: CurateConfig) -> list[Span]:
    """Returns the scenes of a video, without gaps and in order; call it in a guarded worker, files are hostile.

    Args:
        path: File to read; may be anything.
        config: Limits.

    Returns:
        The scenes; none if it is not longer than `split_over_seconds`, shows one scene only, or is no video.

    Raises:
        av.FFmpegError: If a frame cannot be used.
        MemoryError: If there is too little memory.
    """
    if config.split_over_seconds is None or not path.is_file():
        return []
    try:
        with path.open("rb") as stream:
            # Playlists and the like, which name other files, must not reach ffmpeg.
            return _read(stream, config, config.split_over_seconds) if _is_video(stream) else []
    except av.FFmpegError as error:
        raise_if_memory(error)
        raise
    except OSError:
        return []


def _may_be_split(item: Source, config: CurateConfig) -> bool:
    return item.span is None and refusal(item, config) is None


def _scenes(item: Source, outcome: Outcome, config: CurateConfig) -> list[Source]:
    if outcome.failure in _FAILURES:
        return [replace(item, problem=_FAILURES[outcome.failure])]
    if isinstance(outcome.value, str):
        return [replace(item, problem=outcome.value)]
    if not outcome.value:
        return [item]
    return [_scene(item, begin, end, config.min_seconds) for begin, end in outcome.value]


def _scene(item: Source, begin: float, end: float, least: float) -> Source:
    fragment = f"#t={begin:.3f},{end:.3f}"
    facts: dict[str, Any] = {
        "ref": item.ref + fragment,
        "uri": item.uri + fragment,
        "recording": item.recording or item.ref,
        "span": (begin, end),
    }
    if end - begin < least:
        facts |= {"problem": "scene_too_short", "path": None, "remote": None}
    return replace(item, **facts)


def _is_video(stream: BinaryIO) -> bool:
    header = stream.read(_HEADER_BYTES)
    stream.seek(0)
    return looks_like_video(header)


def _read(stream: BinaryIO, config: CurateConfig, longest: float) -> list[Span]:
    try:
        video = VideoFile(stream)
    except (av.FFmpegError, NoVideoError, NoDecoderError):
        return []
    with video:
        size = (video.video.width or 0) * (video.video.height or 0)
        if 0 < video.declared <= longest or size > config.max_pixels:
            return []
        times = list(_boundaries(video, config.cut_threshold))
    # What a header declares may be more than the file holds.
    if len(times) < 3 or max(times) <= longest:
        return []
    # Milliseconds, as in the names: what is read must be what is named. A damaged clock may run backwards.
    return list(pairwise(sorted({round(seconds, 3) for seconds in times})))


def _boundaries(video: VideoFile, threshold: float) -> Iterator[float]:
    """Yields when the first scene begins, each of the others, and when the last one ends."""
    from scenedetect import FrameTimecode
    from scenedetect.detectors import ContentDetector

    scaler = VideoReformatter()
    end: float | None = None
    shape: tuple[int, ...] = ()
    for number, shot in enumerate(_shots(video)):
        image = shrunk(shot, scaler, "bgr24")
        if image.shape != shape:
            # The picture changes its size only where something else begins.
            detector, shape = ContentDetector(threshold, min_scene_len=0), image.shape
            yield shot.seconds
        # Only the order of the frames counts here: the clock of the file says when each of them is shown.
        if detector.process_frame(FrameTimecode(number, 25.0), image):
            yield shot.seconds
        end = max(shot.end, end or 0.0)
    if end is not None:
        yield end


def _shots(video: VideoFile) -> Iterator[Shot]:
    for packet in video.packets():
        for frame in video.decode(packet):
            shot = video.shot(frame)
            video.position = shot.seconds
            yield shot
