"""Contact sheets: many small pictures on one, for the tracker's pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_GAP, _LINE, _PAPER, _INK = 6, 16, (250, 249, 246), (60, 58, 54)


def sheet(pictures: Sequence[tuple[Path, str]], columns: int, height: int = 128) -> Image.Image:
    """Returns a contact sheet.

    Args:
        pictures: Picture file and the words below it (one short line, or none).
        columns: Pictures in a row.
        height: Height of a picture, px; its width follows.
    """
    tiles = [_tile(path, words, height) for path, words in pictures]
    if not tiles:
        return Image.new("RGB", (height, height), _PAPER)
    columns = min(columns, len(tiles))
    width, tall = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    rows = -(-len(tiles) // columns)
    size = (columns * (width + _GAP) + _GAP, rows * (tall + _GAP) + _GAP)
    paper = Image.new("RGB", size, _PAPER)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        paper.paste(tile, (_GAP + column * (width + _GAP), _GAP + row * (tall + _GAP)))
    return paper


def _tile(path: Path, words: str, height: int) -> Image.Image:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    width = max(1, round(picture.width * height / picture.height))
    tile = Image.new("RGB", (width, height + (_LINE if words else 0)), _PAPER)
    tile.paste(picture.resize((width, height), Image.Resampling.BICUBIC), (0, 0))
    if words:
        ImageDraw.Draw(tile).text((1, height + 1), words, fill=_INK, font=ImageFont.load_default(11))
    return tile


def rows_of_pictures(rows: Sequence[Sequence[NDArray[np.uint8]]], height: int = 128) -> Image.Image:
    """Returns pictures (uint8 [H, W, 3]) in rows, without words."""
    columns = max(len(row) for row in rows)
    step = height + _GAP
    paper = Image.new("RGB", (columns * step + _GAP, len(rows) * step + _GAP), _PAPER)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            tile = Image.fromarray(picture).resize((height, height), Image.Resampling.BICUBIC)
            paper.paste(tile, (_GAP + x * step, _GAP + y * step))
    return paper
