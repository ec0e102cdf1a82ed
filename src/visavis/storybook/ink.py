"""Paints and paths: thin helpers over Skia that keep the drawing code readable."""

from __future__ import annotations

from collections.abc import Sequence

import skia

from visavis.storybook.people import Colour

Point = tuple[float, float]
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """Returns the colour at `t` in [0, 1] between two colours."""
    return (
        round(a[0] + (b[0] - a[0]) * t),
        round(a[1] + (b[1] - a[1]) * t),
        round(a[2] + (b[2] - a[2]) * t),
    )


def darker(colour: Colour, amount: float) -> Colour:
    """Returns the colour moved towards a deep, slightly warm shadow."""
    return mix(colour, (34, 16, 30), amount)


def lighter(colour: Colour, amount: float) -> Colour:
    """Returns the colour moved towards white."""
    return mix(colour, WHITE, amount)


class Ink:
    """Makes paints under one light.

    Args:
        brightness: Factor on all channels.
        warmth: In [-1, 1]; above 0 adds red and takes blue.
    """

    def __init__(self, brightness: float = 1.0, warmth: float = 0.0) -> None:
        self._red = brightness * (1 + 0.06 * warmth)
        self._green = brightness * (1 + 0.008 * warmth)
        self._blue = brightness * (1 - 0.10 * warmth)

    def code(self, colour: Colour, alpha: int = 255) -> int:
        """Returns the lit colour as Skia's ARGB number."""
        red = min(255, int(colour[0] * self._red + 0.5))
        green = min(255, int(colour[1] * self._green + 0.5))
        blue = min(255, int(colour[2] * self._blue + 0.5))
        return (alpha << 24) | (red << 16) | (green << 8) | blue

    def fill(self, colour: Colour, alpha: int = 255) -> skia.Paint:
        """Returns a paint that fills with one colour."""
        paint = skia.Paint()
        paint.setAntiAlias(True)
        paint.setColor(self.code(colour, alpha))
        return paint

    def stroke(self, colour: Colour, width: float, alpha: int = 255) -> skia.Paint:
        """Returns a paint that draws lines with round ends."""
        paint = self.fill(colour, alpha)
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeWidth(width)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
        paint.setStrokeJoin(skia.Paint.kRound_Join)
        return paint

    def linear(self, start: Point, end: Point, colours: Sequence[Colour]) -> skia.Paint:
        """Returns a paint with an even linear gradient."""
        paint = skia.Paint()
        paint.setAntiAlias(True)
        paint.setShader(skia.GradientShader.MakeLinear([start, end], [self.code(c) for c in colours]))
        return paint

    def glow(self, centre: Point, radius: float, colour: Colour, alpha: int) -> skia.Paint:
        """Returns a paint that is `colour` in the centre and fades to nothing at `radius`."""
        paint = skia.Paint()
        paint.setAntiAlias(True)
        codes = [self.code(colour, alpha), self.code(colour, 0)]
        paint.setShader(skia.GradientShader.MakeRadial(centre, radius, codes))
        return paint


def polygon(points: Sequence[Point]) -> skia.Path:
    """Returns a closed path of straight lines."""
    path = skia.Path()
    path.addPoly(list(points), True)
    return path


def smooth(points: Sequence[Point], closed: bool = True) -> skia.Path:
    """Returns a rounded path (Catmull-Rom) through all points."""
    path = skia.Path()
    path.moveTo(*points[0])
    count = len(points)
    for i in range(count if closed else count - 1):
        if closed:
            before, after = points[i - 1], points[(i + 2) % count]
        else:
            before, after = points[max(i - 1, 0)], points[min(i + 2, count - 1)]
        (ax, ay), (bx, by) = points[i], points[(i + 1) % count]
        path.cubicTo(
            ax + (bx - before[0]) / 6,
            ay + (by - before[1]) / 6,
            bx - (after[0] - ax) / 6,
            by - (after[1] - ay) / 6,
            bx,
            by,
        )
    if closed:
        path.close()
    return path


def curve(start: Point, middle: Point, end: Point) -> skia.Path:
    """Returns an open quadratic curve with `middle` as its control point."""
    path = skia.Path()
    path.moveTo(*start)
    path.quadTo(*middle, *end)
    return path
