"""A look for cuts inside a clip that decodes as little as it can.

A clip in which one shot follows another cannot show the same two people twice by rule. A few sampled frames are
compared; where two of them differ, key frames between them narrow the place down, and only the stretch that is
left is decoded and judged frame by frame (content difference in HSV as in PySceneDetect's ContentDetector).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from visavis.data.video.reader import Reader
from visavis.data.video.upright import Frame, raise_if_memory
from visavis.data.video.video_file import Shot

_LONGER_SIDE = 96
_COARSE_SHARE = 0.6


@dataclass(frozen=True)
class Look:
    """A frame as the cut detection sees it: `small` is uint8 HSV [h, w, 3], the longer side at most 96."""

    seconds: float
    small: Frame


class Looker:
    """Makes small pictures of frames straight from the decoder's pixels."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def __call__(self, shot: Shot) -> Look:
        """Returns the look of a frame.

        Raises:
            av.FFmpegError: If its pixels cannot be converted.
            MemoryError: If there is too little memory.
        """
        small = shrunk(shot, self._scaler, "rgb24")
        return Look(shot.seconds, np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2HSV), np.uint8))


def shrunk(shot: Shot, scaler: VideoReformatter, pixels: str) -> Frame:
    """Returns a frame as cuts are looked for on it: uint8 [h, w, 3], its longer side at most 96 px.

    Args:
        shot: The frame.
        scaler: One for each film: it is slow to begin.
        pixels: ffmpeg's name of the order of the channels: `rgb24` or `bgr24`.

    Raises:
        av.FFmpegError: If its pixels cannot be converted.
        MemoryError: If there is too little memory.
    """
    width, height = shot.frame.width, shot.frame.height
    scale = min(1.0, _LONGER_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    try:
        small = scaler.reformat(shot.frame, *size, pixels, interpolation="AREA", threads=1)
    except av.FFmpegError as error:
        raise_if_memory(error)
        raise
    return np.asarray(small.to_ndarray(), np.uint8)


def content_difference(one: Frame, two: Frame) -> float:
    """Returns the mean absolute difference of hue, saturation and value of two equal-sized HSV pictures."""
    return float(np.abs(one.astype(np.int16) - two.astype(np.int16)).mean())


def find_cut(reader: Reader, looks: list[Look], threshold: float) -> dict[str, Any] | None:
    """Looks for two neighbouring frames of two shots.

    Args:
        reader: Of the file that the looks were taken of.
        looks: Sampled frames in order; a cut is found if the samples at its sides differ.
        threshold: Mean HSV difference (0-255) of neighbouring frames that is a cut.

    Returns:
        When the cut is, in seconds, and how much the two frames differ; None if there is no cut.
    """
    look = Looker()
    stretches = list(reversed(list(pairwise(looks))))
    while stretches:
        one, two = stretches.pop()
        if _difference(one, two) < threshold * _COARSE_SHARE:
            continue
        if (middle := reader.key_inside(one.seconds, two.seconds)) is not None:
            inside = look(middle)
            stretches += [(inside, two), (one, inside)]
            continue
        previous: Look | None = None
        for shot in reader.between(one.seconds, two.seconds):
            current = look(shot)
            if previous is not None and (value := _difference(previous, current)) >= threshold:
                return {"cut_after_seconds": round(previous.seconds, 3), "content_value": round(value, 2)}
            previous = current
    return None


def _difference(one: Look, two: Look) -> float:
    # The picture changes its size only where something else begins.
    return content_difference(one.small, two.small) if one.small.shape == two.small.shape else 255.0
