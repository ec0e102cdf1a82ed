"""Squares: the box that holds both people, portraits, masked close-ups, and reading and writing pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture: TypeAlias = NDArray[np.uint8]
Box: TypeAlias = Sequence[float]

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0-255."""

GRAY = 128
GRAYS: Colour = (GRAY, GRAY, GRAY)
_PORTRAIT_STEPS = 9
_FACE_HEIGHT_IN_PORTRAIT = 0.46
FACE_HEIGHT_IN_CLOSEUP = 0.567
"""Where the middle of a face lies in its close-up, from the top: there is more hair above than chin below."""
_HAIR_ROOM = 0.2


@dataclass(frozen=True)
class Square:
    """An axis-aligned square in px; it may reach over the border of its picture."""

    x: int
    y: int
    side: int


def cut(image: Picture, square: Square, colour: Colour = GRAYS) -> Picture:
    """Returns the square's content, uint8 [side, side, 3]; what lies outside of the picture has the colour."""
    height, width = image.shape[:2]
    x0, y0 = max(square.x, 0), max(square.y, 0)
    x1, y1 = min(square.x + square.side, width), min(square.y + square.side, height)
    result = np.full((square.side, square.side, 3), colour, np.uint8)
    if x1 > x0 and y1 > y0:
        result[y0 - square.y : y1 - square.y, x0 - square.x : x1 - square.x] = image[y0:y1, x0:x1]
    return result


def two_person_box(size: tuple[int, int], faces: Sequence[Box], side: int, margin: float) -> Square | None:
    """Finds the square of a given side that holds whole heads of all people.

    Args:
        size: Width and height of the frame, px.
        faces: Face boxes [x0, y0, x1, y1].
        side: Side of the square, at most the frame's shorter side.
        margin: Room around each face box for hair and ears, as a share of its width and height.

    Returns:
        The square inside of the frame, around the middle of the people; None if they are too far apart.
    """
    starts = []
    for axis in (0, 1):
        room = [margin * (face[axis + 2] - face[axis]) for face in faces]
        low = min(max(face[axis] - extra, 0.0) for face, extra in zip(faces, room, strict=True))
        high = max(min(face[axis + 2] + extra, size[axis]) for face, extra in zip(faces, room, strict=True))
        if high - low > side:
            return None
        starts.append(int(np.clip(round((low + high - side) / 2), 0, size[axis] - side)))
    return Square(starts[0], starts[1], side)


def portrait_square(face: Box, other: Box | None, side: int, scale: float, smallest: float) -> Square:
    """Finds a head-and-shoulders square around one person that keeps the other one's face out.

    Args:
        face: Face box of the person in a square picture.
        other: Face box of somebody else in it, if any.
        side: Side of the picture.
        scale: Wanted side of the square, in longer sides of the face box.
        smallest: Least side, in longer sides of the face box; reached only to keep the other face out.

    Returns:
        A square inside of the picture with the whole face: the largest that shows nothing of the other face,
        or, where there is none, the one that shows the least of it.
    """
    longer = max(face[2] - face[0], face[3] - face[1])
    middle_x, middle_y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    best: tuple[float, Square] | None = None
    for factor in np.linspace(scale, smallest, _PORTRAIT_STEPS):
        length = int(min(round(factor * longer), side))
        y = int(np.clip(round(middle_y - _FACE_HEIGHT_IN_PORTRAIT * length), 0, side - length))
        x = _shifted_away(middle_x - length / 2, length, face, other, side)
        square = Square(x, y, length)
        shown = _shown(square, other)
        if best is None or shown < best[0] - 1e-6:
            best = (shown, square)
        if shown <= 0:
            break
    assert best is not None
    return best[1]


def _shifted_away(x: float, length: int, face: Box, other: Box | None, side: int) -> int:
    """Moves the left edge away from the other face, as far as hair and picture allow."""
    room = _HAIR_ROOM * (face[2] - face[0])
    lowest, highest = face[2] + room - length, face[0] - room
    if other is not None:
        if other[0] + other[2] > face[0] + face[2]:
            x = max(min(x, other[0] - length), lowest)
        else:
            x = min(max(x, other[2]), highest)
    return int(np.clip(round(x), 0, side - length))


def _shown(square: Square, other: Box | None) -> float:
    if other is None:
        return 0.0
    width = min(square.x + square.side, other[2]) - max(square.x, other[0])
    height = min(square.y + square.side, other[3]) - max(square.y, other[1])
    return max(width, 0.0) * max(height, 0.0)


def closeup_square(face: Box, scale: float) -> Square:
    """Finds the square of a close-up: all faces have the same size and place in theirs, whatever their hair is like.

    Then two close-ups of somebody differ by what the person does and not by where the hair ends, and what is to be
    painted where does not depend on it either.

    Args:
        face: Face box [x0, y0, x1, y1].
        scale: Side of the square, in heights of the face box.
    """
    side = round(scale * (face[3] - face[1]))
    x, y = (face[0] + face[2]) / 2 - side / 2, (face[1] + face[3]) / 2 - FACE_HEIGHT_IN_CLOSEUP * side
    return Square(round(x), round(y), max(side, 1))


def masked_closeup(
    image: Picture,
    mask: NDArray[np.bool_],
    square: Square,
    size: int,
    colour: Colour = GRAYS,
    feather: float = 0.0,
) -> Picture:
    """Cuts a head out (paper, Figure 5): one colour outside of the mask.

    Args:
        image: uint8 [H, W, 3].
        mask: bool [H, W].
        square: What is shown, such as `closeup_square` finds; it may reach over the picture.
        size: Side of the result, px.
        colour: What is outside of the mask.
        feather: Width of the rim that fades into the colour, px of the result. The rim lies inside of the mask,
            so nothing from behind the head shines through.

    Returns:
        uint8 [size, size, 3].
    """
    alone = np.where(mask[..., None], image, np.asarray(colour, np.uint8))
    if feather > 0:
        weights = _faded(mask, feather * square.side / size)[..., None]
        blended = weights * image + (1 - weights) * np.asarray(colour, np.float32)
        alone = np.asarray(np.rint(blended), np.uint8)
    return resized(cut(alone, square, colour), size)


def _faded(mask: NDArray[np.bool_], rim: float) -> NDArray[np.float32]:
    """Returns weights [H, W] that rise from 0 outside of the mask to 1 `rim` px inside of it."""
    # What touches the picture's border goes on behind it: nothing fades there.
    inside = np.pad(mask, 1, mode="edge").astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return np.asarray(np.clip(distance / (rim + 1), 0, 1), np.float32)


def resized(image: Picture, size: int) -> Picture:
    """Resizes a picture to a square; the bicubic filter of Pillow widens when it shrinks, so nothing aliases."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def encode_png(image: Picture) -> bytes:
    """Returns the PNG bytes of a picture; equal pictures give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def write_png(path: Path, image: Picture) -> None:
    """Writes a picture. Not atomically: the journal names an item only after its pictures are written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(image))


def read_png(path: Path) -> Picture:
    """Returns a picture of our own as uint8 RGB [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
