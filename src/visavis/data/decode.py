"""First and last frame of a clip, without decoding what lies between, and a look for cuts inside.

A clip in which one shot follows another cannot show the same two people twice by rule, so a cut is looked for
on a few sampled frames; only where two of them differ is the stretch between them decoded and judged frame by
frame (content difference in HSV as in PySceneDetect's ContentDetector).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from visavis.files import sha256_file

Frame: TypeAlias = NDArray[np.uint8]

_HEADER_BYTES = 400
_SEEK_GAP_S = 2.0
_END_FRAMES = 3.0
_CUT_WIDTH = 96
_COARSE_SHARE = 0.6
_BOX_TYPES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_MAGICS = (b"\x1aE\xdf\xa3", b"FLV", b"0&\xb2u", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"OggS")


@dataclass(frozen=True)
class DecodeJob:
    """One clip to read; plain values, since it travels to a worker process.

    Attributes:
        path: File to read.
        min_seconds: Shorter clips are rejected.
        max_pixels: Larger frames are rejected before they are decoded.
        cut_samples: Frames that are compared, first and last included.
        cut_threshold: Mean HSV difference (0-255) of neighbouring frames that is a cut.
    """

    path: str
    min_seconds: float
    max_pixels: int
    cut_samples: int
    cut_threshold: float


@dataclass(frozen=True)
class Clip:
    """What was read: `first` and `last` are uint8 RGB [H, W, 3]."""

    sha256: str
    first: Frame
    last: Frame
    seconds: float
    fps: float


@dataclass(frozen=True)
class Rejected:
    """Why a file is no usable clip; `frames` are for people to look at, if any could be decoded."""

    reason: str
    sha256: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    frames: tuple[Frame, ...] = ()


def read_clip(job: DecodeJob) -> Clip | Rejected:
    """Reads first and last frame of a file that may be anything.

    Returns:
        The clip, or a rejection with one of the reasons `missing_file`, `unreadable`, `not_a_file`,
        `empty_file`, `not_a_video`, `too_large`, `truncated`, `damaged`, `too_short`, `cut`.
    """
    path = Path(job.path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Rejected("not_a_file")
        digest = sha256_file(path)
        if status.st_size == 0:
            return Rejected("empty_file", digest)
        with path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
            # ffmpeg would also open texts: playlists that name other files, subtitles. Only videos reach it.
            if not looks_like_video(header):
                return Rejected("not_a_video", digest, {"header": header[:16].hex()})
            stream.seek(0)
            return _read_stream(stream, digest, job)
    except FileNotFoundError:
        return Rejected("missing_file")
    except OSError as error:
        return Rejected("unreadable", None, {"error": os.strerror(error.errno or 0)})


def looks_like_video(header: bytes) -> bool:
    """Tells by the first bytes whether a file is one of the usual video containers."""
    if header[4:8] in _BOX_TYPES or header.startswith(_MAGICS):
        return True
    if header[:4] == b"RIFF" and header[8:12] == b"AVI ":
        return True
    return header[:1] == b"\x47" and header[188:189] == b"\x47"


def content_difference(one: Frame, two: Frame) -> float:
    """Returns the mean absolute difference of hue, saturation and value of two equal-sized HSV pictures."""
    return float(np.abs(one.astype(np.int16) - two.astype(np.int16)).mean())


def _read_stream(stream: Any, digest: str, job: DecodeJob) -> Clip | Rejected:
    try:
        container = av.open(stream, mode="r", metadata_errors="ignore")
    except av.FFmpegError as error:
        # It begins like a video, but cannot be opened: the index (at the end of most MP4 files) is missing.
        return Rejected("truncated", digest, {"error": str(error)})
    with container:
        if not container.streams.video:
            return Rejected("not_a_video", digest, {"streams": [s.type for s in container.streams]})
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        if (video.width or 0) * (video.height or 0) > job.max_pixels:
            return Rejected("too_large", digest, {"width": video.width, "height": video.height})
        return _judge(_Reader(container, video), digest, job)


def _judge(reader: _Reader, digest: str, job: DecodeJob) -> Clip | Rejected:
    first = reader.next()
    if first is None:
        return Rejected("truncated", digest, {"error": "no frame could be decoded"})
    times, samples = [first.seconds], [first.image]
    for seconds in np.linspace(0, reader.declared, job.cut_samples)[1:-1]:
        if (shot := reader.at(float(seconds))) is not None and shot.seconds > times[-1]:
            times.append(shot.seconds)
            samples.append(shot.image)
    last = reader.last() or first
    times.append(last.seconds)
    samples.append(last.image)
    frames = (first.image, last.image)
    detail = {"seconds": round(last.end, 3), "declared_seconds": round(reader.declared, 3)}
    if reader.declared - last.end > _END_FRAMES / reader.fps:
        return Rejected("truncated", digest, detail, frames)
    if reader.damaged:
        return Rejected("damaged", digest, detail, frames)
    if last.end < job.min_seconds or last.seconds <= first.seconds:
        return Rejected("too_short", digest, detail, frames)
    if first.image.shape != last.image.shape:
        return Rejected("damaged", digest, {**detail, "sizes": [first.image.shape, last.image.shape]}, frames)
    if (found := _find_cut(reader, times, samples, job.cut_threshold)) is not None:
        return Rejected("cut", digest, {**detail, **found}, frames)
    return Clip(digest, first.image, last.image, round(last.end, 3), round(reader.fps, 3))


@dataclass(frozen=True)
class _Shot:
    """A decoded frame; `end` is when the next one would start. Seconds count from the first frame."""

    image: Frame
    seconds: float
    end: float


class _Reader:
    """Walks forward through a video stream and jumps over long gaps."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.container, self.stream = container, stream
        self.fps = float(stream.average_rate or stream.guessed_rate or 25)
        self.damaged = False
        self._start: float | None = None
        self._position = 0.0
        base = float(stream.time_base or 0)
        declared = stream.duration * base if stream.duration else (container.duration or 0) / av.time_base
        self.declared = float(declared)
        self._frames = self._decoded()

    def next(self) -> _Shot | None:
        """Returns the next frame, or None at the end."""
        frame = next(self._frames, None)
        return None if frame is None else self._shot(frame)

    def at(self, seconds: float) -> _Shot | None:
        """Returns the first frame that is shown until after `seconds`; only forward. None at the end."""
        if seconds - self._position > _SEEK_GAP_S:
            self.seek(seconds)
        for frame in self._frames:
            if self._time(frame) + self._length(frame) > seconds:
                return self._shot(frame)
        return None

    def last(self) -> _Shot | None:
        """Returns the last frame of the file, decoding from the last key frame on, or all if that fails."""
        if self.declared - self._position > _SEEK_GAP_S:
            for back in (0.0, _SEEK_GAP_S):
                self.seek(max(self.declared - back, 0.0))
                if (shot := self._drain()) is not None:
                    return shot
            self.seek(0.0)
        return self._drain()

    def seek(self, seconds: float) -> None:
        """Moves to the key frame at or before `seconds`; stays where it is if the file cannot be sought."""
        base = self.stream.time_base
        if base is None:
            return
        target = int((seconds + (self._start or 0.0)) / float(base))
        try:
            self.container.seek(target, stream=self.stream, backward=True)
        except av.FFmpegError:
            return
        self._frames = self._decoded()

    def between(self, first: float, last: float) -> Iterator[Frame]:
        """Yields the frames from one time to another, both included."""
        self.seek(first)
        slack = 0.5 / self.fps
        for frame in self._frames:
            seconds = self._time(frame)
            if seconds > last + slack:
                return
            if seconds >= first - slack:
                yield self._shot(frame).image

    def _drain(self) -> _Shot | None:
        newest = None
        for frame in self._frames:
            newest = frame
        return None if newest is None else self._shot(newest)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.EOFError):
                return
            except av.FFmpegError:
                self.damaged = True
                return
            # Parts of a packet that the file no longer holds are filled up with gray by the decoder.
            self.damaged |= bool(packet.is_corrupt)
            try:
                frames = packet.decode()
            except av.EOFError:
                return
            except av.FFmpegError:
                self.damaged = True
                continue
            for frame in frames:
                self._position = self._time(frame)
                yield frame

    def _time(self, frame: av.VideoFrame) -> float:
        if frame.pts is None:
            return self._position + (1 / self.fps if self._start is not None else 0.0)
        if self._start is None:
            self._start = frame.time
        return frame.time - self._start

    def _length(self, frame: av.VideoFrame) -> float:
        length = float((frame.duration or 0) * (frame.time_base or 0))
        return length if length > 0 else 1 / self.fps

    def _shot(self, frame: av.VideoFrame) -> _Shot:
        image: Frame = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        # Phones store pictures lying on their side and say so beside them.
        turns = round((frame.rotation or 0) / 90) % 4
        image = np.ascontiguousarray(np.rot90(image, turns)) if turns else image
        seconds = self._time(frame)
        return _Shot(image, seconds, seconds + self._length(frame))


def _find_cut(
    reader: _Reader, times: list[float], samples: list[Frame], threshold: float
) -> dict[str, float] | None:
    small = [_small_hsv(sample) for sample in samples]
    for index in range(len(small) - 1):
        if content_difference(small[index], small[index + 1]) < threshold * _COARSE_SHARE:
            continue
        previous: Frame | None = None
        for image in reader.between(times[index], times[index + 1]):
            current = _small_hsv(image)
            if previous is not None:
                value = content_difference(previous, current)
                if value >= threshold:
                    return {"cut_after_seconds": round(times[index], 3), "content_value": round(value, 2)}
            previous = current
    return None


def _small_hsv(image: Frame) -> Frame:
    height, width = image.shape[:2]
    scale = min(1.0, _CUT_WIDTH / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2HSV), np.uint8)
