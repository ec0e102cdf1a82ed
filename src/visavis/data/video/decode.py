"""First and last frame of a clip, upright and in square pixels, without decoding what lies between."""

from __future__ import annotations

import math
import os
import stat
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from visavis.data.video.cuts import Look, Looker, find_cut
from visavis.data.video.reader import Reader
from visavis.data.video.upright import Frame, picture, square_size
from visavis.data.video.video_file import NoDecoderError, NoVideoError, Shot
from visavis.files import sha256_file

_HEADER_BYTES = 400
_END_FRAMES = 3.0
_END_S = 0.1
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
        start_seconds: Where in the file the clip begins, counted from the file's first frame.
        end_seconds: Where it ends: frames that begin then or later are not part of it; None: with the file.
    """

    path: str
    min_seconds: float
    max_pixels: int
    cut_samples: int
    cut_threshold: float
    start_seconds: float = 0.0
    end_seconds: float | None = None


@dataclass(frozen=True)
class Clip:
    """What was read: `first` and `last` are uint8 RGB [H, W, 3]; `seconds` is the length of the clip."""

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
        `empty_file`, `not_a_video`, `unknown_codec`, `too_large`, `truncated`, `damaged`, `too_short`, `cut`.

    Raises:
        MemoryError: If the process may not have the memory that the file would need.
    """
    path = Path(job.path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Rejected("not_a_file")
        digest = _digest(job.path, status.st_ino, status.st_size, status.st_mtime_ns)
        if status.st_size == 0:
            return Rejected("empty_file", digest)
        with path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
            # ffmpeg would also open texts: playlists that name other files, subtitles. Only videos reach it.
            if not looks_like_video(header):
                return Rejected("not_a_video", digest, {"header": header[:16].hex()})
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


@lru_cache(maxsize=8)
def _digest(path: str, inode: int, size: int, changed_ns: int) -> str:
    """Hashes a file once for all the clips that it holds, unless it changes in between."""
    return sha256_file(Path(path))


def _read_stream(stream: BinaryIO, digest: str, job: DecodeJob) -> Clip | Rejected:
    try:
        reader = Reader(stream)
    except NoVideoError as error:
        # Of an index that is cut off, ffmpeg may take what is left for an empty one.
        reason = "truncated" if _cut_off(stream) else "not_a_video"
        return Rejected(reason, digest, {"streams": error.kinds})
    except NoDecoderError:
        return Rejected("truncated" if _cut_off(stream) else "unknown_codec", digest)
    except av.FFmpegError as error:
        # It begins like a video, but cannot be opened: the index (at the end of most MP4 files) is missing.
        return Rejected("truncated", digest, {"error": error.strerror})
    with reader:
        try:
            return _judge(reader, digest, job)
        except av.FFmpegError as error:
            return Rejected("damaged", digest, {"error": error.strerror})


def _cut_off(stream: BinaryIO) -> bool:
    """Tells whether a file that begins like an MP4 ends in the middle of a box."""
    size = stream.seek(0, os.SEEK_END)
    place = 0
    while place < size:
        stream.seek(place)
        length, kind = struct.unpack(">I4s", stream.read(8).ljust(8, b"\0"))
        if place == 0 and kind not in _BOX_TYPES:
            return False
        if length == 0:
            # The last box may say that it lasts until the end.
            return False
        if length == 1:
            (length,) = struct.unpack(">Q", stream.read(8).ljust(8, b"\0"))
        place += max(length, 8)
    return place > size


def _judge(reader: Reader, digest: str, job: DecodeJob) -> Clip | Rejected:
    aspect = reader.video.sample_aspect_ratio
    if (refused := _refused_size(reader, reader.video.width or 0, reader.video.height or 0, job)) is not None:
        return Rejected("too_large", digest, refused)
    first = reader.first(job.start_seconds)
    if first is None:
        # A decoder that gets no memory may keep silent about it: see whether there is room for a picture.
        bytearray(3 * (reader.video.width or 0) * (reader.video.height or 0))
        return Rejected("truncated", digest, {"error": "no frame could be decoded"})
    until = math.inf if job.end_seconds is None else job.end_seconds
    declared = min(reader.declared, until)
    spacing = max(declared - first.seconds, 0.0) / (job.cut_samples - 1)
    last, looks = _ending(reader, first, until, spacing)
    # What the header says of the size binds no frame.
    for shot in (first, last):
        if (refused := _refused_size(reader, shot.frame.width, shot.frame.height, job)) is not None:
            return Rejected("too_large", digest, refused)
    frames = (picture(first.frame, aspect), picture(last.frame, aspect))
    # If more comes after it, the last frame is shown until the end, whatever the file says of its length.
    end = until if reader.passed_end else last.end
    seconds = end - first.seconds
    detail: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "declared_seconds": round(declared - first.seconds, 3),
    }
    if declared - end > max(_END_FRAMES / reader.fps, _END_S) and not reader.passed_end:
        return Rejected("truncated", digest, detail, frames)
    short = seconds < job.min_seconds or last.seconds <= first.seconds
    if not short:
        looks[1:1] = _samples(reader, first.seconds, looks[1].seconds, spacing)
    if reader.damaged:
        return Rejected("damaged", digest, detail, frames)
    if short:
        return Rejected("too_short", digest, detail, frames)
    if frames[0].shape != frames[1].shape:
        return Rejected("damaged", digest, {**detail, "sizes": [frame.shape for frame in frames]}, frames)
    if (found := find_cut(reader, looks, job.cut_threshold)) is not None:
        return Rejected("cut", digest, {**detail, **found}, frames)
    return Clip(digest, *frames, round(seconds, 3), round(reader.fps, 3))


def _refused_size(reader: Reader, width: int, height: int, job: DecodeJob) -> dict[str, Any] | None:
    wide, high = square_size(width, height, reader.video.sample_aspect_ratio)
    if wide * high <= job.max_pixels:
        return None
    return {"width": wide, "height": high}


def _ending(reader: Reader, first: Shot, until: float, spacing: float) -> tuple[Shot, list[Look]]:
    """Returns the last frame, and looks of the first, of the last, and of what was decoded on the way there."""
    look = Looker()
    last, looks = first, [look(first)]
    for shot in reader.tail(until):
        # The key frame of the tail and those after it cost nothing more than the look, so there may be more.
        if last is first or shot.seconds >= looks[-1].seconds + spacing / 2:
            looks.append(look(shot))
        last = shot
    if looks[-1].seconds < last.seconds or len(looks) == 1:
        looks.append(look(last))
    return last, looks


def _samples(reader: Reader, first: float, tail: float, spacing: float) -> list[Look]:
    """Returns looks from between the first frame and the tail, about `spacing` seconds from each other."""
    if spacing <= 0 or (count := math.ceil((tail - first) / spacing - 0.5) - 1) < 1:
        return []
    times = np.linspace(first, tail, count + 2)[1:-1].tolist()
    look = Looker()
    looks = [look(shot) for shot in reader.samples(times, spacing / 2) if first < shot.seconds < tail]
    return sorted(looks, key=lambda look: look.seconds)
