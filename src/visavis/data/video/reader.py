"""Reads what is wanted of a video: the frames at its two ends, at key frames, or between two times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import BinaryIO

from visavis.data.video.video_file import SLACK_S, STEPS_BACK_S, Shot, VideoFile

_SEEK_GAP_S = 2.0
# H.264 marks the frames that no other refers to; elsewhere, leaving some out may harm the others.
_SKIMMED_CODEC = "h264"
# Frames that others are predicted from are larger than those in between; a tenth of all are surely of them.
_FEW_PACKETS = 20
_QUIET_SHARE = 3.0


class Reader(VideoFile):
    """Walks forward through a video and jumps over long gaps.

    Attributes:
        passed_end: Whether frames were seen that are shown after the end of the tail.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.passed_end = False

    def first(self, start: float) -> Shot | None:
        """Returns the first frame that begins at `start` seconds or later; None if there is none."""
        shot = next(self._shots(), None)
        if shot is None or start <= SLACK_S:
            return shot
        if start - self.position > _SEEK_GAP_S:
            self.land(start)
        return next((shot for shot in self._shots() if shot.seconds >= start - SLACK_S), None)

    def tail(self, end: float) -> Iterator[Shot]:
        """Yields some of the last frames that begin before `end` seconds, and as the last of them the very last.

        They begin at the key frame before the end, earlier if nothing can be decoded from there on, and never
        before the frame that was read last. `end` may be infinite.
        """
        begin = self.position
        goal = min(end, self.declared) if self.declared > 0 else end
        if math.isfinite(goal) and goal - begin > _SEEK_GAP_S:
            for back in STEPS_BACK_S:
                if goal - back <= begin:
                    break
                self.land(goal - back)
                newest = self._newest(end)
                for needed in (None,) if newest is None else (newest, None):
                    self.land(goal - back)
                    shot = None
                    for shot in self._inside(begin, end, needed):
                        yield shot
                    if shot is not None and needed in (None, shot.frame.pts):
                        return
            self.land(begin)
        yield from self._inside(begin, end)

    def samples(self, times: Sequence[float], slack: float) -> Iterator[Shot]:
        """Yields frames from around the rising `times`, at most about `slack` seconds away, in any order.

        Key frames are taken where there are any, since only they are decoded without their neighbours. Where
        there are none for long, frames on the way are taken too; but if, as far as the packets' sizes tell, little
        changes until the next key frame, the one before stands for all.
        """
        newest = -math.inf
        distant: dict[float, list[float]] = {}
        for seconds in times:
            key = self.land(seconds)
            if key is None or key < seconds - slack:
                distant.setdefault(key or 0.0, []).append(seconds - slack)
            elif key > newest:
                newest = key
                yield from self._key_shot()
        for key, wanted in distant.items():
            self.land(key)
            quiet = self._quiet()
            self.land(key)
            if quiet:
                yield from self._key_shot()
                continue
            due = wanted[0]
            for shot in self._shots(skim=True):
                if shot.seconds >= due:
                    yield shot
                    due = shot.seconds + slack
                if shot.seconds >= wanted[-1]:
                    break

    def key_inside(self, first: float, last: float) -> Shot | None:
        """Returns a key frame that lies between two times, near their middle; None if there is none."""
        apart = 0.5 / self.fps
        for seconds in ((first + last) / 2, last - apart):
            key = self.land(seconds)
            if key is not None and first + apart < key < last - apart:
                return next(iter(self._key_shot()), None)
        return None

    def between(self, first: float, last: float) -> Iterator[Shot]:
        """Yields the frames from one time to another, both included."""
        self.land(first)
        slack = 0.5 / self.fps
        yield from self._inside(first - slack, last + slack)

    def _shots(self, skim: bool = False, needed: int | None = None) -> Iterator[Shot]:
        """Yields the frames from here on.

        Args:
            skim: Leave out frames that no other frame is predicted from, where the codec tells which they are.
            needed: Time stamp of a frame that is not left out.
        """
        context = self.video.codec_context
        skim = skim and context.name == _SKIMMED_CODEC
        try:
            for packet in self.packets():
                if skim:
                    context.skip_frame = "DEFAULT" if packet.pts == needed else "NONREF"
                for frame in self.decode(packet):
                    shot = self.shot(frame)
                    self.position = shot.seconds
                    yield shot
        finally:
            context.skip_frame = "DEFAULT"

    def _inside(self, first: float, last: float, needed: int | None = None) -> Iterator[Shot]:
        for shot in self._shots(skim=needed is not None, needed=needed):
            if shot.seconds >= last - SLACK_S:
                self.passed_end = True
                return
            if shot.seconds >= first:
                yield shot

    def _newest(self, end: float) -> int | None:
        """Returns the time stamp of the last packet from here on that is shown before `end`, without decoding.

        None if that cannot be told, or would be of no use.
        """
        if self.video.codec_context.name != _SKIMMED_CODEC:
            return None
        newest = None
        for packet in self.packets():
            if packet.size == 0 or packet.is_discard:
                continue
            time = self.time_of(packet)
            if packet.pts is None or packet.dts is None or time is None:
                return None
            # Nothing is shown before it is decoded, so all that follows comes later.
            if time - (packet.pts - packet.dts) * self.tick >= end:
                break
            if time < end - SLACK_S and (newest is None or packet.pts > newest):
                newest = packet.pts
        return newest

    def _quiet(self) -> bool:
        """Tells whether the packets after this key frame are of about one size: a cut takes a large one."""
        self.pending = None
        sizes = [packet.size for packet in takewhile(lambda packet: not packet.is_keyframe, self.packets())]
        if len(sizes) < _FEW_PACKETS:
            return False
        return max(sizes) <= _QUIET_SHARE * sorted(sizes)[len(sizes) * 9 // 10]

    def _key_shot(self) -> list[Shot]:
        """Decodes the key frame that was landed on and nothing else; the reader must be moved afterwards."""
        packet, self.pending = self.pending, None
        if packet is None or (seconds := self.time_of(packet)) is None:
            return []
        # Without the end of the stream a decoder waits for frames that might come before this one.
        frames = [*self.decode(packet), *self.decode(None)]
        return [Shot(frame, seconds, seconds + 1 / self.fps) for frame in frames[:1]]
