"""Clips as cameras, editors and broken programs write them; what is drawn on each frame is known."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

WIDTH, HEIGHT, FPS = 192, 128, 24
GOP = {"g": "12"}


def drawn(index: int, count: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Returns frame `index` of `count`: three marked corners, and a disc that goes from left to right."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[: height // 3, : width // 3] = (200, 40, 40)
    image[: height // 3, -width // 4 :] = (40, 200, 40)
    image[-height // 4 :, : width // 2] = (40, 40, 200)
    x = round(width * (0.3 + 0.4 * index / max(count - 1, 1)))
    cv2.circle(image, (x, height // 2), height // 8, (230, 220, 40), -1, cv2.LINE_AA)
    return image


class _Pipe(io.RawIOBase):
    """A file that cannot be sought, so the writer cannot come back to fill in a length."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        return self.file.write(data)

    def close(self) -> None:
        self.file.close()
        super().close()


def encode(
    path: Path,
    frames: int = 48,
    picture: Callable[[int, int], np.ndarray] = drawn,
    *,
    codec: str = "libx264",
    container: str = "mp4",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    milliseconds: Callable[[int], int] | None = None,
    live: bool = False,
) -> Path:
    """Writes a clip.

    Args:
        path: Where to.
        frames: How many.
        picture: Draws one of them, given its number and how many there are.
        codec: Encoder.
        container: Format.
        pixels: Pixel format.
        options: Of the encoder.
        muxer: Options of the container.
        aspect: Width of a stored pixel over its height.
        milliseconds: When a frame is shown; evenly at 24 frames per second without it.
        live: Written as to a pipe, so that the header bears no length.
    """
    pipe = _Pipe(path) if live else None
    with av.open(pipe or str(path), "w", format=container, options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=FPS, options={"threads": "1", **(options or {})})
        stream.height, stream.width = picture(0, frames).shape[:2]
        stream.pix_fmt = pixels
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, frames), format="rgb24")
            if milliseconds is not None:
                frame.pts, frame.time_base = milliseconds(index), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    if pipe is not None:
        pipe.close()
    return path


def set_matrix(path: Path, across: int, turn_down: int, turn_across: int, down: int) -> None:
    """Writes a track's display matrix into an MP4: x' = across x + turn_across y, y' = turn_down x + down y."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    one = 1 << 16
    numbers = (across * one, turn_down * one, 0, turn_across * one, down * one, 0, 0, 0, 1 << 30)
    content[place : place + 36] = struct.pack(">9i", *numbers)
    path.write_bytes(content)


def lying(upright: np.ndarray, across: int, turn_down: int, turn_across: int, down: int) -> np.ndarray:
    """Returns the picture that must be stored so that the matrix shows it upright."""
    height, width = upright.shape[:2]
    turned = across == 0
    y, x = np.indices((width, height) if turned else (height, width))
    column = across * x + turn_across * y
    row = turn_down * x + down * y
    return upright[row - row.min(), column - column.min()]


def set_length(content: bytes, seconds: int) -> bytes:
    """Returns an MP4 whose headers claim another length."""
    changed = bytearray(content)
    for box, scale_at, length_at in (("mvhd", 16, 20), ("mdhd", 16, 20), ("tkhd", None, 24)):
        place = changed.index(box.encode())
        scale = 1000 if scale_at is None else struct.unpack_from(">I", changed, place + scale_at)[0]
        struct.pack_into(">I", changed, place + length_at, seconds * scale)
    return bytes(changed)


def set_matroska_length(content: bytes, seconds: int) -> bytes:
    """Returns a Matroska file whose header claims another length."""
    changed = bytearray(content)
    place = changed.index(b"\x44\x89\x88") + 3
    struct.pack_into(">d", changed, place, seconds * 1000.0)
    return bytes(changed)
