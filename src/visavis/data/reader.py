"""Walks through a video file: the frames at its two ends, at key frames, or between two times.

Nothing that a header says is taken for true without need: seeks may land anywhere, times may be missing, and a
file may hold less than it declares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import BinaryIO

import av
from av.stream import Disposition
from av.video.stream import VideoStream

from visavis.data.upright import raise_if_memory

_SEEK_GAP_S = 2.0
_STEPS_BACK_S = (0.0, 1.0, 4.0, 16.0, 64.0)
# Times are rounded to the container's clock, often to milliseconds.
_SLACK_S = 0.0015
_DEFAULT_FPS = 25.0


class NoVideoError(Exception):
    """The file holds no moving pictures; `kinds` are the types of its streams."""

    def __init__(self, kinds: list[str]) -> None:
        super().__init__(", ".join(kinds))
        self.kinds = kinds


class NoDecoderError(Exception):
    """The file holds a video that none of the decoders reads."""


@dataclass(frozen=True)
class Shot:
    """A decoded frame; `end` is when the next one would start. Seconds count from the file's first frame."""

    frame: av.VideoFrame
    seconds: float
    end: float


class Reader:
    """Walks forward through the first video stream of a file and jumps over long gaps.

    Attributes:
        video: The stream.
        fps: Mean frame rate as the header states it.
        declared: Length in seconds as the header states it; 0 if it does not.
        damaged: Whether anything that was read so far could not be decoded.
        beyond: When the first frame after the end of the tail is shown, in seconds; None if there is none.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Opens the file.

        Raises:
            av.FFmpegError: If no container can be made out.
            NoVideoError: If it holds no moving pictures.
            NoDecoderError: If nothing decodes them.
            MemoryError: If there is too little memory.
        """
        self._file = file
        self.damaged = False
        self.beyond: float | None = None
        self._start: float | None = None
        self._position = 0.0
        self._pending: av.Packet | None = None
        self._open()
        rate = float(self.video.average_rate or self.video.guessed_rate or 0)
        self.fps = rate if math.isfinite(rate) and rate > 0 else _DEFAULT_FPS
        self.declared = self._declared()

    def close(self) -> None:
        """Closes the container; the file stays open."""
        self._container.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def first(self, start: float) -> Shot | None:
        """Returns the first frame that begins at `start` seconds or later; None if there is none."""
        shot = next(self._shots(), None)
        if shot is None or start <= _SLACK_S:
            return shot
        if start - self._position > _SEEK_GAP_S:
            self._land(start)
        return next((shot for shot in self._shots() if shot.seconds >= start - _SLACK_S), None)

    def tail(self, end: float) -> Iterator[Shot]:
        """Yields the last frames that begin before `end` seconds, in order, at least the very last.

        They begin at the key frame before the end, earlier if nothing can be decoded from there on, and never
        before the frame that was read last. `end` may be infinite.
        """
        begin = self._position
        goal = min(end, self.declared) if self.declared > 0 else end
        if math.isfinite(goal) and goal - begin > _SEEK_GAP_S:
            for back in _STEPS_BACK_S:
                if goal - back <= begin:
                    break
                self._land(goal - back)
                shot = None
                for shot in self._inside(begin, end):
                    yield shot
                if shot is not None:
                    return
            self._land(begin)
        yield from self._inside(begin, end)

    def samples(self, times: Sequence[float], slack: float) -> Iterator[Shot]:
        """Yields one frame for each of the rising `times`, at most about `slack` seconds away.

        Key frames are taken where there are any, since only they are decoded without their neighbours.
        """
        keys = [self._land(seconds) for seconds in times]
        for key, group in groupby(zip(keys, times, strict=True), lambda pair: pair[0]):
            earliest = [seconds - slack for _, seconds in group]
            self._land(earliest[0] + slack)
            if len(earliest) == 1 and key is not None and key >= earliest[0]:
                if (shot := self._key_shot()) is not None:
                    yield shot
                continue
            for shot in self._shots():
                if shot.seconds >= earliest[0]:
                    yield shot
                    earliest = [seconds for seconds in earliest if seconds > shot.seconds]
                    if not earliest:
                        break

    def key_inside(self, first: float, last: float) -> Shot | None:
        """Returns a key frame that lies between two times, near their middle; None if there is none."""
        apart = 0.5 / self.fps
        for seconds in ((first + last) / 2, last - apart):
            key = self._land(seconds)
            if key is not None and first + apart < key < last - apart:
                return self._key_shot()
        return None

    def between(self, first: float, last: float) -> Iterator[Shot]:
        """Yields the frames from one time to another, both included."""
        self._land(first)
        slack = 0.5 / self.fps
        yield from self._inside(first - slack, last + slack)

    def _open(self) -> None:
        self._file.seek(0)
        try:
            self._container = av.open(self._file, mode="r", metadata_errors="ignore")
        except av.FFmpegError as error:
            raise_if_memory(error)
            raise
        try:
            streams = self._container.streams
            # Covers of songs are videos of one picture to ffmpeg.
            moving = [v for v in streams.video if not v.disposition & Disposition.attached_pic]
            if not moving:
                raise NoVideoError([stream.type for stream in streams])
            if moving[0].codec_context is None:
                raise NoDecoderError
        except BaseException:
            self._container.close()
            raise
        self.video: VideoStream = moving[0]
        self.video.codec_context.thread_count = 1
        self._packets = self._container.demux(self.video)

    def _declared(self) -> float:
        if self.video.duration and self.video.time_base:
            return float(self.video.duration * self.video.time_base)
        length = self._container.duration or 0
        if "matroska" in self._container.format.name:
            # There the length is counted from zero, wherever the first frame lies.
            length -= max(self._container.start_time or 0, 0)
        return max(length, 0) / av.time_base

    def _land(self, seconds: float) -> float | None:
        """Moves to the key frame at or before `seconds`; returns its time, None if it bears none."""
        for back in _STEPS_BACK_S:
            target = max(seconds - back, 0.0)
            self._seek(target)
            for packet in self._demuxed():
                if packet.is_keyframe:
                    time = self._packet_time(packet)
                    if target == 0 or time is None or time <= seconds + _SLACK_S:
                        self._pending = packet
                        return time
                    break
        self._seek(0.0)
        return None

    def _seek(self, seconds: float) -> None:
        self._pending = None
        start = 0.0 if self._start is None else self._start
        target = int((seconds + start) / float(self.video.time_base or Fraction(1, av.time_base)))
        try:
            # The very beginning may lie before the first frame that is shown.
            self._container.seek(target if seconds > 0 else min(target, 0), stream=self.video, backward=True)
        except av.FFmpegError as error:
            raise_if_memory(error)
            # It cannot be sought: back to the beginning, from where everything can be reached by reading on.
            self._container.close()
            self._open()
        self._packets = self._container.demux(self.video)

    def _demuxed(self) -> Iterator[av.Packet]:
        if self._pending is not None:
            packet, self._pending = self._pending, None
            yield packet
        while True:
            try:
                packet = next(self._packets)
            except (StopIteration, av.EOFError):
                return
            except av.FFmpegError as error:
                raise_if_memory(error)
                self.damaged = True
                return
            # Parts of a packet that the file no longer holds are filled up with gray by the decoder.
            self.damaged |= bool(packet.is_corrupt)
            yield packet

    def _shots(self) -> Iterator[Shot]:
        for packet in self._demuxed():
            for frame in self._decoded(packet):
                shot = self._shot(frame)
                self._position = shot.seconds
                yield shot

    def _inside(self, first: float, last: float) -> Iterator[Shot]:
        for shot in self._shots():
            if shot.seconds >= last - _SLACK_S:
                self.beyond = shot.seconds
                return
            if shot.seconds >= first:
                yield shot

    def _key_shot(self) -> Shot | None:
        """Decodes the key frame that was landed on and nothing else; the reader must be moved afterwards."""
        packet, self._pending = self._pending, None
        if packet is None or (seconds := self._packet_time(packet)) is None:
            return None
        # Without the end of the stream a decoder waits for frames that might come before this one.
        frames = [*self._decoded(packet), *self._decoded(None)]
        return Shot(frames[0], seconds, seconds + 1 / self.fps) if frames else None

    def _decoded(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            return self.video.codec_context.decode(packet)
        except av.EOFError:
            return []
        except av.FFmpegError as error:
            raise_if_memory(error)
            self.damaged = True
            return []

    def _packet_time(self, packet: av.Packet) -> float | None:
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or packet.time_base is None:
            return None
        return float(stamp * packet.time_base) - (self._start or 0.0)

    def _shot(self, frame: av.VideoFrame) -> Shot:
        base = float(self.video.time_base or 0)
        if frame.pts is None or base <= 0:
            seconds = 0.0 if self._start is None else self._position + 1 / self.fps
            self._start = self._start or 0.0
        else:
            if self._start is None:
                self._start = frame.pts * base
            seconds = frame.pts * base - self._start
        length = (frame.duration or 0) * base
        return Shot(frame, seconds, seconds + (length if length > 0 else 1 / self.fps))
