"""The places. Units: picture heights, x from the middle, y from the top; wide enough for any picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import skia

from visavis.storybook.ink import Ink, Point, curve, darker, lighter, polygon, smooth
from visavis.storybook.people import Colour

_LEFT, _RIGHT = -1.3, 1.3
_INK = Ink()


def _band(canvas: skia.Canvas, top: float, bottom: float, colours: list[Colour]) -> None:
    paint = _INK.linear((0, top), (0, bottom), colours)
    canvas.drawRect(skia.Rect(_LEFT, top, _RIGHT, bottom), paint)


def _ground(skyline: list[Point]) -> skia.Path:
    """Returns the land below a rounded line from the left end to the right end."""
    return smooth([*skyline, (_RIGHT, 1.3), (_LEFT, 1.3)])


def _cloud(canvas: skia.Canvas, x: float, y: float, size: float) -> None:
    path = skia.Path()
    for dx, dy, r in ((-0.9, 0.1, 0.5), (-0.2, -0.2, 0.75), (0.6, 0.0, 0.6), (1.2, 0.15, 0.4)):
        path.addCircle(x + dx * size, y + dy * size, r * size)
    path.addRect(skia.Rect(x - size, y + 0.1 * size, x + 1.3 * size, y + 0.55 * size))
    canvas.drawPath(path, _INK.fill((255, 255, 255), 225))


def _sun(canvas: skia.Canvas, centre: Point, radius: float, colour: Colour) -> None:
    canvas.drawCircle(*centre, radius * 2.6, _INK.glow(centre, radius * 2.6, lighter(colour, 0.3), 150))
    canvas.drawCircle(*centre, radius, _INK.fill(colour))


def _ridge(rng: np.random.Generator, low: float, high: float, step: float) -> list[Point]:
    xs = np.arange(_LEFT, _RIGHT + step, step)
    xs = xs + rng.uniform(-0.25, 0.25, len(xs)) * step
    ys = np.where(np.arange(len(xs)) % 2 == 0, low, high) + rng.uniform(-0.05, 0.05, len(xs))
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


def _beach(canvas: skia.Canvas, rng: np.random.Generator) -> None:
    _band(canvas, 0, 0.56, [(66, 164, 238), (170, 222, 250)])
    _sun(canvas, (float(rng.uniform(-0.4, 0.4)), float(rng.uniform(0.1, 0.2))), 0.09, (255, 240, 150))
    _cloud(canvas, float(rng.uniform(-0.5, 0.4)), float(rng.uniform(0.24, 0.34)), 0.07)
    _band(canvas, 0.52, 0.74, [(20, 104, 176), (64, 178, 206)])
    for x, y in rng.uniform((-0.9, 0.55), (0.9, 0.68), (7, 2)):
        glint = _INK.stroke((214, 242, 250), 0.008, 170)
        canvas.drawLine(float(x), float(y), float(x) + 0.08, float(y), glint)
    shore = _ground([(_LEFT, 0.72), (-0.6, 0.705), (-0.1, 0.725), (0.4, 0.7), (_RIGHT, 0.72)])
    canvas.drawPath(shore, _INK.linear((0, 0.7), (0, 1), [(250, 234, 184), (228, 196, 130)]))
    foam = _INK.stroke((255, 255, 255), 0.014, 170)
    canvas.drawPath(curve((_LEFT, 0.715), (0, 0.73), (_RIGHT, 0.712)), foam)


def _mountains(canvas: skia.Canvas, rng: np.random.Generator) -> None:
    _band(canvas, 0, 1, [(138, 178, 226), (226, 236, 248)])
    for low, high, colour, step in ((0.55, 0.26, (142, 160, 198), 0.34), (0.66, 0.34, (88, 108, 156), 0.42)):
        ridge = _ridge(rng, low, high, step)
        canvas.drawPath(polygon([*ridge, (_RIGHT, 1), (_LEFT, 1)]), _INK.fill(colour))
        caps = skia.Path()
        for before, peak, after in zip(ridge, ridge[1:], ridge[2:], strict=False):
            if peak[1] < before[1]:
                left = (peak[0] + (before[0] - peak[0]) * 0.3, peak[1] + (before[1] - peak[1]) * 0.3)
                right = (peak[0] + (after[0] - peak[0]) * 0.3, peak[1] + (after[1] - peak[1]) * 0.3)
                caps.addPoly([peak, right, (peak[0], right[1] - 0.02), left], True)
        canvas.drawPath(caps, _INK.fill((250, 252, 255)))
    hill = _ground([(_LEFT, 0.72), (-0.5, 0.66), (0.1, 0.72), (0.6, 0.65), (_RIGHT, 0.72)])
    canvas.drawPath(hill, _INK.linear((0, 0.65), (0, 1), [(252, 253, 255), (204, 218, 238)]))


def _city(canvas: skia.Canvas, rng: np.random.Generator) -> None:
    _band(canvas, 0, 1, [(14, 16, 52), (52, 40, 104), (112, 70, 134)])
    stars = skia.Path()
    for x, y in rng.uniform((-0.95, 0.02), (0.95, 0.3), (24, 2)):
        stars.addCircle(float(x), float(y), 0.006)
    canvas.drawPath(stars, _INK.fill((255, 255, 240), 210))
    _sun(canvas, (float(rng.uniform(-0.4, 0.4)), 0.13), 0.06, (250, 246, 220))
    for colour, floor, tall in (((44, 40, 84), 0.9, 0.34), ((24, 22, 50), 1.0, 0.5)):
        x, walls, lit = _LEFT, skia.Path(), skia.Path()
        while x < _RIGHT:
            wide = float(rng.uniform(0.15, 0.24))
            top = tall + float(rng.uniform(-0.14, 0.14))
            walls.addRect(skia.Rect(x, top, x + wide, floor + 0.2))
            on = rng.random((4, 3)) < 0.62
            for row in range(4):
                for column in range(3):
                    if on[row, column]:
                        wx, wy = x + wide * (0.16 + 0.26 * column), top + 0.05 + 0.1 * row
                        lit.addRect(skia.Rect(wx, wy, wx + wide * 0.15, wy + 0.045))
            x += wide + 0.012
        canvas.drawPath(walls, _INK.fill(colour))
        canvas.drawPath(lit, _INK.fill((255, 212, 104)))


def _forest(canvas: skia.Canvas, rng: np.random.Generator) -> None:
    _band(canvas, 0, 1, [(200, 232, 206), (120, 184, 130)])
    rows = ((0.05, 0.78, (104, 168, 112)), (0.14, 0.86, (56, 124, 74)), (0.24, 0.94, (28, 86, 54)))
    for depth, (top, base, colour) in enumerate(rows):
        trees = skia.Path()
        x = _LEFT + float(rng.uniform(0, 0.15))
        while x < _RIGHT:
            tip, half = top + float(rng.uniform(-0.08, 0.12)), 0.11 + 0.025 * depth
            for k in range(3):
                y0 = tip + (base - tip) * 0.24 * k
                y1 = tip + (base - tip) * (0.44 + 0.26 * k)
                wide = half * (0.55 + 0.24 * k)
                trees.addPoly([(x, y0), (x + wide, y1), (x - wide, y1)], True)
            x += float(rng.uniform(0.2, 0.34))
        canvas.drawPath(trees, _INK.linear((0, top), (0, base), [lighter(colour, 0.1), darker(colour, 0.18)]))
    _band(canvas, 0.86, 1, [(84, 122, 60), (54, 84, 42)])


def _room(canvas: skia.Canvas, rng: np.random.Generator) -> None:
    wall = ((242, 222, 192), (214, 226, 232), (232, 214, 226))[int(rng.integers(3))]
    _band(canvas, 0, 0.84, [lighter(wall, 0.25), darker(wall, 0.12)])
    _band(canvas, 0.84, 1, [(164, 110, 70), (124, 78, 48)])
    canvas.drawRect(skia.Rect(_LEFT, 0.82, _RIGHT, 0.85), _INK.fill((250, 246, 240)))
    side = 1 if rng.random() < 0.5 else -1
    x = side * float(rng.uniform(0.2, 0.42))
    canvas.drawRect(skia.Rect(x - 0.17, 0.1, x + 0.17, 0.52), _INK.fill((255, 255, 255)))
    glass = _INK.linear((0, 0.1), (0, 0.5), [(108, 186, 246), (204, 234, 252)])
    for dx, dy in ((-0.15, 0.12), (0.01, 0.12), (-0.15, 0.32), (0.01, 0.32)):
        canvas.drawRect(skia.Rect(x + dx, dy, x + dx + 0.14, dy + 0.18), glass)
    px, frame = -side * 0.34, ((196, 70, 60), (52, 106, 150), (60, 130, 90))[int(rng.integers(3))]
    canvas.drawRect(skia.Rect(px - 0.13, 0.16, px + 0.13, 0.38), _INK.fill((96, 64, 40)))
    canvas.drawRect(skia.Rect(px - 0.11, 0.18, px + 0.11, 0.36), _INK.fill(lighter(frame, 0.25)))
    canvas.drawCircle(px, 0.27, 0.05, _INK.fill((250, 220, 120)))
    for dx in (-0.08, 0.0, 0.08):
        leaf = curve((side * -0.62, 0.84), (side * -0.62 + dx * 0.3, 0.66), (side * -0.62 + dx * 1.6, 0.58))
        canvas.drawPath(leaf, _INK.stroke((56, 134, 76), 0.04))


def _sunset(canvas: skia.Canvas, rng: np.random.Generator) -> None:
    _band(canvas, 0, 0.7, [(78, 42, 118), (206, 70, 116), (250, 134, 84), (255, 214, 122)])
    x = float(rng.uniform(-0.35, 0.35))
    _sun(canvas, (x, 0.62), 0.15, (255, 238, 150))
    for y in (0.2, 0.34):
        cx = float(rng.uniform(-0.6, 0.4))
        canvas.drawLine(cx, y, cx + 0.34, y, _INK.stroke((255, 190, 170), 0.03, 110))
    _band(canvas, 0.68, 1, [(148, 62, 104), (52, 28, 70)])
    for k in range(5):
        half, y = 0.16 - 0.022 * k, 0.71 + 0.055 * k
        canvas.drawLine(x - half, y, x + half, y, _INK.stroke((255, 206, 130), 0.014, 180))


def _cafe(canvas: skia.Canvas, rng: np.random.Generator) -> None:
    _band(canvas, 0, 0.78, [(112, 66, 50), (176, 112, 78)])
    board = float(rng.uniform(-0.3, 0.3))
    canvas.drawRect(skia.Rect(board - 0.2, 0.14, board + 0.2, 0.4), _INK.fill((72, 46, 34)))
    canvas.drawRect(skia.Rect(board - 0.18, 0.16, board + 0.18, 0.38), _INK.fill((38, 56, 52)))
    for k in range(4):
        length = float(rng.uniform(0.08, 0.26))
        y = 0.2 + 0.045 * k
        canvas.drawLine(board - 0.14, y, board - 0.14 + length, y, _INK.stroke((224, 230, 220), 0.012, 220))
    for shelf in (0.5, 0.7):
        canvas.drawRect(skia.Rect(_LEFT, shelf, _RIGHT, shelf + 0.022), _INK.fill((70, 40, 28)))
        for x in np.arange(-1.0, 1.0, 0.115):
            tone = ((206, 84, 62), (238, 206, 150), (84, 140, 120), (250, 246, 236))[int(rng.integers(4))]
            tall = float(rng.uniform(0.06, 0.11))
            cup = skia.Rect(float(x), shelf - tall, float(x) + 0.062, shelf)
            canvas.drawRoundRect(cup, 0.012, 0.012, _INK.fill(tone))
    for x in (-0.85, -0.36, 0.06, 0.44, 0.86):
        centre = (x, 0.13)
        canvas.drawCircle(*centre, 0.2, _INK.glow(centre, 0.2, (255, 214, 130), 150))
        canvas.drawLine(x, 0, x, 0.09, _INK.stroke((40, 26, 22), 0.01))
        canvas.drawCircle(x, 0.12, 0.035, _INK.fill((255, 240, 196)))
    _band(canvas, 0.78, 1, [(146, 88, 54), (88, 52, 36)])
    canvas.drawRect(skia.Rect(_LEFT, 0.76, _RIGHT, 0.8), _INK.fill((204, 142, 92)))


def _park(canvas: skia.Canvas, rng: np.random.Generator) -> None:
    _band(canvas, 0, 0.7, [(112, 190, 246), (214, 240, 252)])
    for x in rng.uniform((-0.9, -0.2, 0.4), (-0.5, 0.2, 0.9)):
        _cloud(canvas, float(x), float(rng.uniform(0.1, 0.24)), 0.06)
    hill = _ground([(_LEFT, 0.6), (-0.5, 0.5), (0.1, 0.58), (0.6, 0.5), (_RIGHT, 0.6)])
    canvas.drawPath(hill, _INK.fill((142, 204, 104)))
    for spot in (-1.0, -0.62, -0.34, 0.02, 0.36, 0.66, 1.0):
        x, r = spot + float(rng.uniform(-0.08, 0.08)), float(rng.uniform(0.09, 0.15))
        canvas.drawRect(skia.Rect(x - 0.016, 0.5, x + 0.016, 0.7), _INK.fill((112, 76, 48)))
        leaves = skia.Path()
        for dx, dy in ((-0.6, 0.1), (0.0, -0.5), (0.6, 0.1)):
            leaves.addCircle(x + dx * r, 0.46 + dy * r, r * 0.8)
        tones: list[Colour] = [(108, 190, 84), (42, 122, 62)]
        canvas.drawPath(leaves, _INK.linear((x - r, 0.36), (x + r, 0.6), tones))
    meadow = _ground([(_LEFT, 0.68), (-0.2, 0.66), (0.4, 0.7), (_RIGHT, 0.66)])
    canvas.drawPath(meadow, _INK.linear((0, 0.66), (0, 1), [(120, 194, 84), (66, 140, 58)]))
    way = float(rng.uniform(-0.3, 0.3))
    path = [(way, 0.69), (way + 0.03, 0.69), (way + 0.26, 1.02), (way - 0.2, 1.02)]
    canvas.drawPath(polygon(path), _INK.fill((232, 214, 172)))


_PLACES: dict[str, Callable[[skia.Canvas, np.random.Generator], None]] = {
    "beach": _beach,
    "mountains": _mountains,
    "city": _city,
    "forest": _forest,
    "room": _room,
    "sunset": _sunset,
    "cafe": _cafe,
    "park": _park,
}


def draw_backdrop(canvas: skia.Canvas, name: str, detail: int) -> None:
    """Draws a place; `detail` is the seed of its small things."""
    _PLACES[name](canvas, np.random.default_rng(detail))
