"""Views of a picture: the parts that a model reads it in besides the whole, so that a large one keeps its detail.

Source: SEED-X `src/data/any_res.py` (how the grid is chosen; centres of the parts).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers.image_processing_utils import select_best_resolution

Picture = NDArray[np.uint8]


def grid_of(width: int, height: int, size: int, most: int) -> tuple[int, int]:
    """Chooses the grid that a picture is cut by, the smaller of what two rules say.

    One rule keeps most of the picture's pixels and then wastes least; the other comes closest to its proportions and
    then to its area.

    Args:
        width: Of the picture, px.
        height: Of the picture, px.
        size: Side of a part, px.
        most: Most parts; 4 gives SEED-X's eight grids.

    Returns:
        Columns and rows.
    """
    sizes = [
        (rows * size, columns * size)
        for columns in range(1, most + 1)
        for rows in range(1, most // columns + 1)
    ]

    def distance(of: tuple[int, int]) -> tuple[float, float]:
        return _ratio(of[0] * width, of[1] * height), _ratio(of[0] * of[1], width * height)

    kept = select_best_resolution((height, width), sizes)
    rows, columns = min(kept, min(sizes, key=distance), key=lambda of: of[0] * of[1])
    return columns // size, rows // size


def parts_of(picture: Picture, size: int, most: int) -> list[tuple[Picture, tuple[float, float]]]:
    """Cuts a picture, stretched to the grid that suits it, into squares, row by row.

    Args:
        picture: `[H, W, 3]`.
        size: Side of a part, px.
        most: Most parts.

    Returns:
        Each part `[size, size, 3]` and its centre (x, y) in [0, 1].
    """
    columns, rows = grid_of(picture.shape[1], picture.shape[0], size, most)
    stretched = Image.fromarray(picture).resize((columns * size, rows * size), Image.Resampling.BICUBIC)
    pixels = np.asarray(stretched).reshape(rows, size, columns, size, 3).swapaxes(1, 2)
    return [
        (pixels[row, column], ((column + 0.5) / columns, (row + 0.5) / rows))
        for row in range(rows)
        for column in range(columns)
    ]


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)
