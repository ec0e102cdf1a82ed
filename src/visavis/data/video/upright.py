"""Decoded frames as people see them: upright, in square pixels, eight bits per colour."""

from __future__ import annotations

import errno
from fractions import Fraction
from typing import Any, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

Frame: TypeAlias = NDArray[np.uint8]


def raise_if_memory(error: av.FFmpegError) -> None:
    """Raises MemoryError if that is what the error says: it must not pass for a damaged file."""
    if error.errno == errno.ENOMEM:
        raise MemoryError(str(error)) from error


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Returns width and height in square pixels; the side that is too short grows, so no detail is lost.

    Args:
        width: Stored width, px.
        height: Stored height, px.
        aspect: Width of a stored pixel over its height; None or 0 if the file does not say.
    """
    if not aspect or aspect < 0:
        return width, height
    if aspect >= 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def picture(frame: av.VideoFrame, aspect: Fraction | None) -> Frame:
    """Returns a frame as people see it: upright, in square pixels; uint8 RGB [H, W, 3].

    Raises:
        av.FFmpegError: If its pixels cannot be converted.
        MemoryError: If there is too little memory.
    """
    width, height = square_size(frame.width, frame.height, aspect)
    scaled = (width, height) != (frame.width, frame.height)
    try:
        array = frame.to_ndarray(
            format="rgb24",
            threads=1,
            width=width,
            height=height,
            interpolation="BICUBIC" if scaled else "BILINEAR",
        )
    except av.FFmpegError as error:
        raise_if_memory(error)
        raise
    return _upright(np.asarray(array, np.uint8), frame)


def _upright(image: Frame, frame: av.VideoFrame) -> Frame:
    """Undoes what phones do: they store pictures lying on their side, or mirrored, and say so beside them."""
    try:
        beside: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # Something else lies beside the frame that the binding has no name for.
        return np.ascontiguousarray(np.rot90(image, round((frame.rotation or 0) / 90)))
    if beside is None:
        return image
    across, turn_down, _, turn_across, down = np.frombuffer(bytes(beside), np.int32)[:5].tolist()
    if abs(across) + abs(down) < abs(turn_down) + abs(turn_across):
        image, across, down = image.swapaxes(0, 1), turn_across, turn_down
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
