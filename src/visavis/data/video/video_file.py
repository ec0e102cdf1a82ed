"""A video file that may be anything: opened, moved to key frames, taken apart into packets and frames.

Nothing that a header says is taken for true without need: seeks may land anywhere, and times may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Self

import av
from av.stream import Disposition
from av.video.stream import VideoStream

from visavis.data.video.upright import raise_if_memory

# Times are rounded to the container's clock, often to milliseconds.
SLACK_S = 0.0015
STEPS_BACK_S = (0.0, 1.0, 4.0, 16.0, 64.0)
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


class VideoFile:
    """The first video stream of a file.

    Attributes:
        video: The stream.
        fps: Mean frame rate as the header states it.
        declared: Length in seconds as the header states it; 0 if it does not.
        tick: Unit of the time stamps, in seconds.
        damaged: Whether anything that was read so far could not be decoded.
        position: When the frame that was decoded last is shown, in seconds.
        pending: Packet that was read already and comes next.
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
        self._start: float | None = None
        self.position = 0.0
        self.pending: av.Packet | None = None
        self._open()
        rate = float(self.video.average_rate or self.video.guessed_rate or 0)
        self.fps = rate if math.isfinite(rate) and rate > 0 else _DEFAULT_FPS
        self.tick = float(self.video.time_base or Fraction(1, av.time_base))
        self.declared = self._declared()

    def close(self) -> None:
        """Closes the container; the file stays open."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        if self.video.duration:
            return self.video.duration * self.tick
        length = self._container.duration or 0
        if "matroska" in self._container.format.name:
            # There the length is counted from zero, wherever the first frame lies.
            length -= max(self._container.start_time or 0, 0)
        return max(length, 0) / av.time_base

    def land(self, seconds: float) -> float | None:
        """Moves to the key frame at or before `seconds`; returns its time, None if it bears none."""
        for back in STEPS_BACK_S:
            target = max(seconds - back, 0.0)
            self._seek(target)
            for packet in self.packets():
                if packet.is_keyframe:
                    time = self.time_of(packet)
                    if target == 0 or time is None or time <= seconds + SLACK_S:
                        self.pending = packet
                        return time
                    break
        self._seek(0.0)
        return None

    def _seek(self, seconds: float) -> None:
        self.pending = None
        start = 0.0 if self._start is None else self._start
        target = int((seconds + start) / self.tick)
        try:
            # The very beginning may lie before the first frame that is shown.
            self._container.seek(target if seconds > 0 else min(target, 0), stream=self.video, backward=True)
        except av.FFmpegError as error:
            raise_if_memory(error)
            # It cannot be sought: back to the beginning, from where everything can be reached by reading on.
            self._container.close()
            self._open()
        self._packets = self._container.demux(self.video)

    def packets(self) -> Iterator[av.Packet]:
        """Yields the packets of the stream from here on, as far as they can be read."""
        if self.pending is not None:
            packet, self.pending = self.pending, None
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

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """Returns the frames that come out of the decoder after a packet; None is the end of the stream.

        Raises:
            MemoryError: If there is too little memory.
        """
        try:
            return self.video.codec_context.decode(packet)
        except av.EOFError:
            return []
        except av.FFmpegError as error:
            raise_if_memory(error)
            self.damaged = True
            return []

    def time_of(self, packet: av.Packet) -> float | None:
        """Returns when the frame in a packet is shown, in seconds, as far as the packet tells."""
        stamp = packet.dts if packet.pts is None else packet.pts
        return None if stamp is None else stamp * self.tick - (self._start or 0.0)

    def shot(self, frame: av.VideoFrame) -> Shot:
        """Returns a decoded frame with its times; the first one that is asked for is the beginning of time."""
        if frame.pts is None:
            seconds = 0.0 if self._start is None else self.position + 1 / self.fps
            self._start = self._start or 0.0
        else:
            if self._start is None:
                self._start = frame.pts * self.tick
            seconds = frame.pts * self.tick - self._start
        length = (frame.duration or 0) * self.tick
        return Shot(frame, seconds, seconds + (length if length > 0 else 1 / self.fps))
