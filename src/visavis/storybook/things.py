"""Objects of pictures without people. Each stands on y = 0 and is about 1 high and 1 wide."""

from __future__ import annotations

from collections.abc import Callable

import skia

from visavis.storybook.ink import BLACK, Ink, curve, darker, lighter, polygon, smooth
from visavis.storybook.people import Colour
from visavis.storybook.shots import CLOTHES_COLOURS, Thing

_INK = Ink()


def _round_tones(colour: Colour) -> list[Colour]:
    return [lighter(colour, 0.45), colour, darker(colour, 0.35)]


def _ball(canvas: skia.Canvas, colour: Colour) -> None:
    canvas.drawCircle(0, -0.4, 0.4, _INK.linear((-0.3, -0.75), (0.3, -0.05), _round_tones(colour)))
    canvas.drawPath(curve((-0.39, -0.4), (0, -0.15), (0.39, -0.4)), _INK.stroke((255, 255, 255), 0.08))


def _tree(canvas: skia.Canvas, colour: Colour) -> None:
    canvas.drawRect(skia.Rect(-0.07, -0.4, 0.07, 0), _INK.fill((116, 74, 44)))
    leaves = skia.Path()
    for x, y, r in ((-0.22, -0.5, 0.22), (0.22, -0.5, 0.22), (0, -0.72, 0.28)):
        leaves.addCircle(x, y, r)
    canvas.drawPath(leaves, _INK.linear((-0.3, -1), (0.3, -0.3), [(122, 200, 92), (40, 122, 60)]))
    for x, y in ((-0.2, -0.52), (0.05, -0.75), (0.22, -0.48), (0.0, -0.5)):
        canvas.drawCircle(x, y, 0.05, _INK.fill(colour))


def _house(canvas: skia.Canvas, colour: Colour) -> None:
    wall = lighter(colour, 0.55)
    paint = _INK.linear((-0.4, 0), (0.4, 0), [wall, darker(wall, 0.18)])
    canvas.drawRect(skia.Rect(-0.42, -0.58, 0.42, 0), paint)
    canvas.drawPath(polygon([(-0.52, -0.56), (0, -1), (0.52, -0.56)]), _INK.fill(darker(colour, 0.2)))
    canvas.drawRect(skia.Rect(-0.1, -0.34, 0.12, 0), _INK.fill((110, 66, 42)))
    for x in (-0.32, 0.2):
        canvas.drawRect(skia.Rect(x, -0.46, x + 0.15, -0.3), _INK.fill((252, 226, 130)))


def _cat(canvas: skia.Canvas, colour: Colour) -> None:
    paint = _INK.linear((-0.3, -0.9), (0.3, 0), [lighter(colour, 0.2), darker(colour, 0.25)])
    canvas.drawPath(curve((0.22, -0.1), (0.62, -0.1), (0.46, -0.55)), _INK.stroke(darker(colour, 0.2), 0.1))
    canvas.drawOval(skia.Rect(-0.27, -0.56, 0.27, 0), paint)
    canvas.drawPath(polygon([(-0.26, -0.98), (-0.26, -0.6), (-0.02, -0.8)]), paint)
    canvas.drawPath(polygon([(0.26, -0.98), (0.26, -0.6), (0.02, -0.8)]), paint)
    canvas.drawOval(skia.Rect(-0.29, -0.88, 0.29, -0.4), paint)
    for side in (-1, 1):
        canvas.drawCircle(side * 0.12, -0.66, 0.05, _INK.fill((250, 250, 190)))
        canvas.drawCircle(side * 0.12, -0.66, 0.026, _INK.fill((20, 20, 20)))
    canvas.drawCircle(0, -0.55, 0.03, _INK.fill((226, 110, 130)))


def _car(canvas: skia.Canvas, colour: Colour) -> None:
    top = smooth([(-0.4, -0.4), (-0.26, -0.66), (0.2, -0.66), (0.42, -0.4)])
    canvas.drawPath(top, _INK.fill(darker(colour, 0.1)))
    for x in (-0.25, 0.03):
        canvas.drawRect(skia.Rect(x, -0.6, x + 0.21, -0.42), _INK.fill((188, 226, 246)))
    body = _INK.linear((0, -0.45), (0, -0.1), [lighter(colour, 0.25), darker(colour, 0.2)])
    canvas.drawRoundRect(skia.Rect(-0.62, -0.44, 0.62, -0.1), 0.1, 0.1, body)
    for x in (-0.34, 0.34):
        canvas.drawCircle(x, -0.11, 0.12, _INK.fill((32, 32, 36)))
        canvas.drawCircle(x, -0.11, 0.055, _INK.fill((190, 190, 196)))


def _balloon(canvas: skia.Canvas, colour: Colour) -> None:
    canvas.drawPath(curve((0, -0.9), (0.1, -0.5), (0, 0)), _INK.stroke((90, 80, 80), 0.02))
    paint = _INK.linear((-0.25, -1.6), (0.25, -0.9), _round_tones(colour))
    canvas.drawOval(skia.Rect(-0.3, -1.65, 0.3, -0.9), paint)


def _boat(canvas: skia.Canvas, colour: Colour) -> None:
    canvas.drawLine(0, -0.95, 0, -0.2, _INK.stroke((96, 66, 44), 0.04))
    canvas.drawPath(polygon([(0.04, -0.95), (0.46, -0.34), (0.04, -0.34)]), _INK.fill((252, 250, 244)))
    jib = polygon([(-0.04, -0.85), (-0.36, -0.34), (-0.04, -0.34)])
    canvas.drawPath(jib, _INK.fill(lighter(colour, 0.35)))
    hull = polygon([(-0.5, -0.26), (0.5, -0.26), (0.32, 0), (-0.32, 0)])
    canvas.drawPath(hull, _INK.fill(darker(colour, 0.15)))


def _mushroom(canvas: skia.Canvas, colour: Colour) -> None:
    stem = _INK.linear((-0.15, 0), (0.15, 0), [(252, 244, 226), (206, 190, 164)])
    canvas.drawRoundRect(skia.Rect(-0.14, -0.5, 0.14, 0), 0.1, 0.1, stem)
    cap = smooth([(-0.46, -0.46), (-0.3, -0.82), (0, -0.95), (0.3, -0.82), (0.46, -0.46), (0, -0.4)])
    canvas.drawPath(cap, _INK.linear((-0.3, -0.9), (0.3, -0.4), _round_tones(colour)))
    for x, y, r in ((-0.22, -0.62, 0.07), (0.06, -0.76, 0.08), (0.24, -0.56, 0.06)):
        canvas.drawCircle(x, y, r, _INK.fill((255, 255, 255), 230))


_THINGS: dict[str, Callable[[skia.Canvas, Colour], None]] = {
    "ball": _ball,
    "tree": _tree,
    "house": _house,
    "cat": _cat,
    "car": _car,
    "balloon": _balloon,
    "boat": _boat,
    "mushroom": _mushroom,
}


def draw_thing(canvas: skia.Canvas, thing: Thing) -> None:
    """Draws an object with its shadow on the ground."""
    canvas.save()
    canvas.translate(thing.x, thing.y)
    canvas.scale(thing.size, thing.size)
    canvas.drawOval(skia.Rect(-0.5, -0.05, 0.5, 0.07), _INK.fill(BLACK, 60))
    _THINGS[thing.kind](canvas, CLOTHES_COLOURS[thing.colour])
    canvas.restore()
