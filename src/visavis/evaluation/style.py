"""The quiet look that all pictures of an evaluation share: paper, ink, a few colours, one typeface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from visavis.evaluation.items import Picture

Colour = tuple[int, int, int]

PAPER: Colour = (250, 249, 246)
CARD: Colour = (255, 255, 255)
LINE: Colour = (228, 224, 216)
INK: Colour = (44, 42, 38)
SOFT: Colour = (125, 120, 110)
ACCENT: Colour = (32, 92, 128)
PEOPLE: tuple[Colour, ...] = ((201, 92, 62), (46, 134, 112), (124, 92, 168), (176, 128, 32))
"""One colour for each person of a chat: ink of the name and frame of the close-up."""
SERIES = ("#205c80", "#c95c3e", "#2e8670", "#b08020", "#7c5ca8", "#8a8578")
"""Colours of curves and bars, readable on white and apart for colour-blind eyes in this order."""

_DENSITY = 2  # pictures are drawn at twice their nominal size, for sharp text on today's screens
_SMOOTH = 2  # and shapes at twice that, then reduced: PIL does not smooth the edges of shapes


@dataclass(frozen=True)
class Word:
    """A word with its ink; a highlighted name is bold."""

    text: str
    colour: Colour
    bold: bool = False


def hex_of(colour: Colour) -> str:
    """Returns `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def tint(colour: Colour, share: float, paper: Colour = CARD) -> Colour:
    """Returns the colour thinned with paper; `share` of it is left."""
    red, green, blue = (round(share * c + (1 - share) * p) for c, p in zip(colour, paper, strict=True))
    return red, green, blue


@cache
def font(size: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans, which comes with matplotlib, at `size` nominal px."""
    import matplotlib.font_manager as fonts

    path = fonts.findfont(fonts.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal"))
    return ImageFont.truetype(path, round(size * _DENSITY))


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Returns the width of a line in nominal px."""
    return font(size, bold).getlength(text) / _DENSITY


def wrap(words: Sequence[Word], size: float, width: float) -> list[list[Word]]:
    """Breaks words into lines of at most `width` nominal px; a longer single word stands alone."""
    lines: list[list[Word]] = []
    used, space = 0.0, text_width(" ", size)
    for word in words:
        wide = text_width(word.text, size, word.bold)
        if lines and used + space + wide <= width:
            lines[-1].append(word)
            used += space + wide
        else:
            lines.append([word])
            used = wide
    return lines


def line_width(line: Sequence[Word], size: float) -> float:
    """Returns the width of a line of words in nominal px."""
    spaces = max(len(line) - 1, 0) * text_width(" ", size)
    return sum(text_width(word.text, size, word.bold) for word in line) + spaces


def plain(text: str, colour: Colour = INK, bold: bool = False) -> list[Word]:
    """Returns the words of a text in one ink."""
    return [Word(word, colour, bold) for word in text.split()]


class Canvas:
    """A sheet of paper in nominal px; the image is `_DENSITY` times as large.

    Shapes are drawn first on a larger sheet, texts and pictures afterwards at full sharpness, whatever the order of
    the calls.

    Args:
        width: Nominal px.
        height: Nominal px.
        paper: Its colour.
    """

    def __init__(self, width: float, height: float, paper: Colour = PAPER) -> None:
        self._size = (round(width * _DENSITY), round(height * _DENSITY))
        scale = _DENSITY * _SMOOTH
        self._scale = scale
        self._shapes = Image.new("RGB", (self._size[0] * _SMOOTH, self._size[1] * _SMOOTH), paper)
        self._draw = ImageDraw.Draw(self._shapes)
        self._pictures: list[tuple[Picture, tuple[float, float, float, float], float]] = []
        self._texts: list[tuple[float, float, str, float, Colour, bool]] = []

    def rectangle(
        self,
        box: tuple[float, float, float, float],
        *,
        fill: Colour | None = None,
        outline: Colour | None = None,
        radius: float = 0,
        width: float = 1,
    ) -> None:
        """Draws a rounded rectangle; `box` is left, top, right, bottom."""
        left, top, right, bottom = (edge * self._scale for edge in box)
        self._draw.rounded_rectangle(
            (left, top, right - 1, bottom - 1),
            radius * self._scale,
            fill=fill,
            outline=outline,
            width=round(width * self._scale),
        )

    def text(
        self, x: float, y: float, text: str, *, size: float = 13, colour: Colour = INK, bold: bool = False
    ) -> None:
        """Writes one line with its top left corner at (x, y)."""
        self._texts.append((x, y, text, size, colour, bold))

    def words(self, x: float, y: float, line: Sequence[Word], *, size: float = 13) -> None:
        """Writes a line of words."""
        space = text_width(" ", size)
        for word in line:
            self.text(x, y, word.text, size=size, colour=word.colour, bold=word.bold)
            x += text_width(word.text, size, word.bold) + space

    def picture(self, picture: Picture, x: float, y: float, size: float, *, radius: float = 0) -> None:
        """Places a picture with its larger side enlarged to `size`, centred in that square."""
        height, width = picture.shape[:2]
        scale = size / max(height, width)
        wide, tall = width * scale, height * scale
        self._pictures.append(
            (
                picture,
                (x + (size - wide) / 2, y + (size - tall) / 2, wide, tall),
                min(radius, wide / 2, tall / 2),
            )
        )

    def image(self) -> Image.Image:
        """Returns the finished sheet."""
        sheet = self._shapes.resize(self._size, Image.Resampling.BOX)
        for picture, (x, y, wide, tall), radius in self._pictures:
            size = (round(wide * _DENSITY), round(tall * _DENSITY))
            large = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
            mask = Image.new("L", (size[0] * _SMOOTH, size[1] * _SMOOTH), 0)
            ImageDraw.Draw(mask).rounded_rectangle(
                (0, 0, mask.width - 1, mask.height - 1), radius * self._scale, fill=255
            )
            corner = (round(x * _DENSITY), round(y * _DENSITY))
            sheet.paste(large, corner, mask.resize(size, Image.Resampling.BOX))
        draw = ImageDraw.Draw(sheet)
        for x, y, text, points, colour, bold in self._texts:
            draw.text((x * _DENSITY, y * _DENSITY), text, fill=colour, font=font(points, bold))
        return sheet
