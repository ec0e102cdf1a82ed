"""Hair and hats, in face heights around the middle of the face."""

from __future__ import annotations

import math

import skia

from visavis.storybook.heads import Head
from visavis.storybook.ink import Ink, Point, curve, darker, lighter, mix, polygon, smooth
from visavis.storybook.people import Colour
from visavis.storybook.shots import CLOTHES_COLOURS

_BRIM = -0.27
# Where the curls sit: angle in degrees from straight up, how far out, size, light or dark.
_CURLS = tuple(
    (angle, 1.0 + 0.06 * ((k * 7) % 3 - 1), 0.105 + 0.02 * ((k * 5) % 3), (k * 3) % 4)
    for k, angle in enumerate(range(-126, 127, 18))
)


class Hair:
    """One head's hair and hat: a part behind the head and a part in front of it."""

    def __init__(self, head: Head) -> None:
        self.head, self.ink = head, head.ink
        volume = head.person.hair_volume
        self.wide = head.half + 0.045 * volume
        self.top = -0.5 - 0.095 * volume
        self.low_hat = head.shot.hat in ("cap", "beanie")

    def _paint(self) -> skia.Paint:
        colour = self.head.hair
        tones = [lighter(colour, 0.22), colour, darker(colour, 0.3)]
        return self.ink.linear((-0.2, self.top), (0.15, 0.4), tones)

    def draw_back(self, canvas: skia.Canvas) -> None:
        """Draws what hangs behind the head and shoulders."""
        style, wide, top = self.head.person.hair_style, self.wide, self.top
        dark = self.ink.fill(darker(self.head.hair, 0.32))
        volume = self.head.person.hair_volume
        if style == "long":
            right: list[Point] = [(wide * 0.8, -0.42), (wide, -0.1), (wide + 0.05, 0.4)]
            right.append((wide + 0.06 * volume, 0.95))
            left = [(-x, y) for x, y in reversed(right)]
            canvas.drawPath(smooth([(0, top), *right, (0, 1.02), *left]), dark)
        elif style == "bob":
            right = [(wide * 0.8, -0.42), (wide, -0.1), (wide + 0.06 * volume, 0.28), (wide * 0.86, 0.47)]
            left = [(-x, y) for x, y in reversed(right)]
            canvas.drawPath(smooth([(0, top), *right, (0, 0.4), *left]), dark)
        elif style == "curly":
            canvas.drawOval(skia.Rect(-wide - 0.03, top, wide + 0.03, 0.34), dark)
            self._curls(canvas, 1.06, rows=((1.0, True),))
        elif style == "bun":
            x, y, r = -0.05 * self.head.shot.yaw, top - 0.075, 0.15 + 0.03 * volume
            tones = [lighter(self.head.hair, 0.25), darker(self.head.hair, 0.22)]
            canvas.drawCircle(x, y, r, self.ink.linear((x - r, y - r), (x + r, y + r), tones))
            paint = self.ink.stroke(darker(self.head.hair, 0.45), 0.018, 170)
            canvas.drawPath(curve((x - r * 0.7, y), (x, y - r * 0.7), (x + r * 0.7, y + 0.01)), paint)

    def draw_front(self, canvas: skia.Canvas) -> None:
        """Draws the hair over the face; a cap or a beanie presses it down."""
        style = self.head.person.hair_style
        if style == "bald":
            if not self.low_hat:
                centre = (-0.12, -0.36)
                canvas.drawCircle(*centre, 0.13, self.ink.glow(centre, 0.13, (255, 255, 255), 120))
            return
        if self.low_hat:
            canvas.save()
            canvas.clipRect(skia.Rect(-3, _BRIM - 0.02, 3, 3))
        if style == "mohawk":
            self._mohawk(canvas)
        elif style == "curly":
            canvas.drawPath(smooth(self._short_shape(0.02)), self._paint())
            self._curls(canvas, 1.0, rows=((0.94, False),))
        elif style == "bob":
            self._bob(canvas)
        elif style == "long":
            self._long(canvas)
        else:
            canvas.drawPath(smooth(self._short_shape(0.06 if style == "short" else -0.06)), self._paint())
            if style == "bun":
                self._strands(canvas, ((-0.6, -0.28, -0.15), (0.6, -0.28, 0.15), (0.0, -0.37, 0.0)))
            else:
                self._gloss(canvas)
        if self.low_hat:
            canvas.restore()

    def _short_shape(self, sideburn: float) -> list[Point]:
        head, wide, top = self.head, self.wide, self.top
        w, part = head.half, head.person.hair_part
        hairline = [
            head.at(0.86 * w, -0.17),
            head.at(0.55 * w, -0.31 + 0.06 * part),
            head.at(0.28 * part * w, -0.335),
            head.at(-0.55 * w, -0.31 - 0.06 * part),
            head.at(-0.86 * w, -0.17),
        ]
        left, right = [(-wide, -0.2), (-wide * 0.8, -0.44)], [(wide * 0.8, -0.44), (wide, -0.2)]
        crown = (-0.04 + 0.1 * part, top)
        return [(-w * 0.985, sideburn), *left, crown, *right, (w * 0.985, sideburn), *hairline]

    def _bob(self, canvas: skia.Canvas) -> None:
        head, wide, w, top = self.head, self.wide, self.head.half, self.top
        volume, part = head.person.hair_volume, head.person.hair_part
        inner, low = w * 0.86, 0.44
        shape: list[Point] = [
            (0, top),
            (wide * 0.8, -0.44),
            (wide + 0.01, -0.1),
            (wide + 0.06 * volume, 0.26),
            (wide * 0.92, low),
            (inner + 0.01, 0.36),
            (inner, 0.05),
            head.at(0.84 * w, -0.16),
            head.at(0.4 * w, -0.225 - 0.03 * part),
            head.at(0, -0.235),
            head.at(-0.4 * w, -0.225 + 0.03 * part),
            head.at(-0.84 * w, -0.16),
            (-inner, 0.05),
            (-inner - 0.01, 0.36),
            (-wide * 0.92, low),
            (-wide - 0.06 * volume, 0.26),
            (-wide - 0.01, -0.1),
            (-wide * 0.8, -0.44),
        ]
        canvas.drawPath(smooth(shape), self._paint())
        self._gloss(canvas)

    def _long(self, canvas: skia.Canvas) -> None:
        head, wide, w, top = self.head, self.wide, self.head.half, self.top
        volume, part = head.person.hair_volume, head.person.hair_part
        middle = head.at(0.35 * part * w, -0.41)
        paint = self._paint()
        for side in (-1, 1):
            lock: list[Point] = [
                (0.3 * part * w, top + 0.005),
                (side * wide * 0.6, -0.53),
                (side * wide * 0.93, -0.3),
                (side * (wide + 0.02), 0.1),
                (side * (wide + 0.07 * volume), 0.6),
                (side * (wide + 0.03 * volume), 0.93),
                (side * (w * 0.8), 0.84),
                (side * (w * 0.86), 0.45),
                (side * (w * 0.92), 0.1),
                head.at(side * 0.8 * w, -0.14),
                head.at((0.35 * part + 0.42 * side) * w, -0.33),
                middle,
            ]
            canvas.drawPath(smooth(lock), paint)
            strand = self.ink.stroke(darker(head.hair, 0.4), 0.016, 150)
            x = side * (wide - 0.02)
            canvas.drawPath(curve((x * 0.86, -0.28), (x + side * 0.03, 0.2), (x, 0.8)), strand)
        self._gloss(canvas)

    def _mohawk(self, canvas: skia.Canvas) -> None:
        head, w, volume = self.head, self.head.half, self.head.person.hair_volume
        stubble = mix(head.skin, head.hair, 0.4)
        canvas.save()
        canvas.clipPath(head.outline, skia.ClipOp.kIntersect, True)
        for side in (-1, 1):
            path: list[Point] = [
                (side * w * 1.1, -0.02),
                (side * w * 1.1, -0.5),
                (0, -0.56),
                head.at(side * 0.3 * w, -0.4),
                head.at(side * 0.86 * w, -0.2),
            ]
            canvas.drawPath(smooth(path), self.ink.fill(stubble))
        canvas.restore()
        shift, tall, fat = -0.06 * head.shot.yaw, -0.72 - 0.13 * volume, 0.09 + 0.03 * volume
        base_x, base_y = head.at(0, -0.31)
        crest: list[Point] = [
            (base_x - fat * 0.9, -0.36),
            (shift - fat * 1.25, -0.52),
            (shift - fat * 1.1, tall + 0.12),
            (shift + 0.01, tall),
            (shift + fat * 1.1, tall + 0.1),
            (shift + fat * 1.25, -0.52),
            (base_x + fat * 0.9, -0.36),
            (base_x, base_y),
        ]
        tones = [lighter(head.hair, 0.3), head.hair, darker(head.hair, 0.3)]
        canvas.drawPath(smooth(crest), self.ink.linear((-0.1, tall), (0.1, -0.3), tones))
        for k in (-0.5, 0.35):
            tip = (shift + fat * k * 0.8, tall + 0.12)
            line = curve((base_x + fat * k, -0.36), (shift + fat * k, -0.55), tip)
            canvas.drawPath(line, self.ink.stroke(darker(head.hair, 0.45), 0.018, 170))

    def _curls(self, canvas: skia.Canvas, reach: float, rows: tuple[tuple[float, bool], ...]) -> None:
        head, volume = self.head, self.head.person.hair_volume
        base = head.hair
        tones = (base, lighter(base, 0.2), darker(base, 0.2), lighter(base, 0.08))
        shades = [self.ink.fill(tone) for tone in tones]
        deep = [self.ink.fill(darker(base, k)) for k in (0.2, 0.28, 0.36, 0.24)]
        for out, behind in rows:
            for angle, far, size, shade in _CURLS:
                if not behind and abs(angle) > 100:
                    continue
                a = math.radians(angle)
                radius = reach * out * far
                x = math.sin(a) * (self.wide + 0.01) * radius
                y = -math.cos(a) * 0.50 * radius - 0.03
                canvas.drawCircle(x, y, size * (0.8 + 0.25 * volume), (deep if behind else shades)[shade])
        if not rows[0][1]:
            for k, x in enumerate((-0.6, -0.2, 0.2, 0.6)):
                px, py = head.at(x * head.half, -0.345 + 0.05 * abs(x))
                canvas.drawCircle(px, py, 0.088, shades[(k + 1) % 4])

    def _gloss(self, canvas: skia.Canvas) -> None:
        if self.low_hat:
            return
        w, y = self.wide, self.top + 0.13
        paint = self.ink.stroke(lighter(self.head.hair, 0.6), 0.03, 105)
        canvas.drawPath(curve((-w * 0.62, y + 0.05), (-w * 0.3, y - 0.055), (w * 0.12, y - 0.025)), paint)

    def _strands(self, canvas: skia.Canvas, ends: tuple[tuple[float, float, float], ...]) -> None:
        paint = self.ink.stroke(darker(self.head.hair, 0.4), 0.016, 140)
        for x, y, bend in ends:
            start = self.head.at(x * self.head.half, y)
            canvas.drawPath(curve(start, (x * 0.25 + bend, self.top + 0.12), (0, self.top + 0.03)), paint)

    def draw_hat(self, canvas: skia.Canvas) -> None:
        """Draws the hat of the shot, if there is one."""
        colour = CLOTHES_COLOURS[self.head.shot.hat_colour]
        hat = self.head.shot.hat
        # A hat fits the hair below it, so that nothing sticks out.
        wide = self.head.half + (0.03 if self.head.person.hair_style in ("bald", "mohawk") else 0.065)
        if hat == "cap":
            _cap(canvas, self.ink, self.head, colour, wide)
        elif hat == "beanie":
            _beanie(canvas, self.ink, colour, wide)
        elif hat == "crown":
            _crown(canvas, self.ink, self.head, self.top)
        elif hat == "headphones":
            self._headphones(canvas, colour)

    def _headphones(self, canvas: skia.Canvas, colour: Colour) -> None:
        style = self.head.person.hair_style
        wide = self.head.half + 0.03 if style in ("bald", "mohawk") else self.wide
        top = min(self.top, -0.53) - 0.03 if style not in ("bald", "mohawk") else -0.54
        y = self.head.person.eye_y + 0.07
        band = skia.Path()
        band.moveTo(-wide - 0.03, y)
        band.cubicTo(-wide - 0.05, top - 0.16, wide + 0.05, top - 0.16, wide + 0.03, y)
        canvas.drawPath(band, self.ink.stroke(darker(colour, 0.45), 0.075))
        canvas.drawPath(band, self.ink.stroke(colour, 0.04))
        for side in (-1, 1):
            x = side * (wide + 0.02)
            cup = skia.Rect(x - 0.072, y - 0.15, x + 0.072, y + 0.15)
            tones = [lighter(colour, 0.25), darker(colour, 0.3)]
            canvas.drawRoundRect(cup, 0.07, 0.07, self.ink.linear((x, y - 0.15), (x, y + 0.15), tones))
            inside = skia.Rect(x - 0.034, y - 0.09, x + 0.034, y + 0.09)
            canvas.drawRoundRect(inside, 0.034, 0.034, self.ink.fill(darker(colour, 0.5)))


def _dome(wide: float, bottom: float, top: float) -> skia.Path:
    return smooth(
        [
            (-wide, bottom),
            (-wide * 0.97, bottom - 0.17),
            (-wide * 0.62, top + 0.07),
            (0, top),
            (wide * 0.62, top + 0.07),
            (wide * 0.97, bottom - 0.17),
            (wide, bottom),
            (0, bottom + 0.02),
        ]
    )


def _cap(canvas: skia.Canvas, ink: Ink, head: Head, colour: Colour, wide: float) -> None:
    tones = [lighter(colour, 0.25), colour, darker(colour, 0.3)]
    canvas.drawPath(_dome(wide, _BRIM, -0.69), ink.linear((-0.3, -0.65), (0.3, _BRIM), tones))
    x = head.at(0, _BRIM, 0.1)[0]
    seam = ink.stroke(darker(colour, 0.35), 0.016, 150)
    canvas.drawPath(curve((0, -0.69), (x * 0.8, -0.5), (x, _BRIM)), seam)
    canvas.drawCircle(0, -0.69, 0.03, ink.fill(darker(colour, 0.15)))
    visor: list[Point] = [
        (x - wide * 0.92, _BRIM - 0.01),
        (x - wide * 0.5, _BRIM - 0.055),
        (x, _BRIM - 0.065),
        (x + wide * 0.5, _BRIM - 0.055),
        (x + wide * 0.92, _BRIM - 0.01),
        (x + wide * 0.55, _BRIM + 0.045),
        (x, _BRIM + 0.06),
        (x - wide * 0.55, _BRIM + 0.045),
    ]
    canvas.drawPath(smooth(visor), ink.fill(darker(colour, 0.32)))


def _beanie(canvas: skia.Canvas, ink: Ink, colour: Colour, wide: float) -> None:
    tones = [lighter(colour, 0.22), colour, darker(colour, 0.25)]
    canvas.drawCircle(0, -0.78, 0.1, ink.fill(lighter(colour, 0.45)))
    canvas.drawPath(_dome(wide, -0.3, -0.73), ink.linear((-0.3, -0.7), (0.35, -0.3), tones))
    band = skia.Rect(-wide - 0.015, -0.39, wide + 0.015, _BRIM + 0.03)
    canvas.drawRoundRect(band, 0.06, 0.06, ink.fill(darker(colour, 0.2)))
    for k in (-0.7, -0.35, 0.0, 0.35, 0.7):
        canvas.drawLine(wide * k, -0.37, wide * k, _BRIM, ink.stroke(darker(colour, 0.42), 0.018, 150))


def _crown(canvas: skia.Canvas, ink: Ink, head: Head, hair_top: float) -> None:
    wide = head.half * 0.92
    bald = head.person.hair_style == "bald"
    low = -0.36 if bald else -0.39
    top = min(-0.76, hair_top - 0.14)
    points: list[Point] = [(-wide, low), (-wide * 1.08, top)]
    points += [(-wide * 0.62, top + 0.15), (-wide * 0.42, top - 0.04), (-wide * 0.2, top + 0.16)]
    points.append((0, top - 0.07))
    points += [(wide * 0.2, top + 0.16), (wide * 0.42, top - 0.04), (wide * 0.62, top + 0.15)]
    points += [(wide * 1.08, top), (wide, low), (0, low + 0.045)]
    gold = [(255, 232, 120), (246, 196, 48), (206, 138, 22)]
    canvas.drawPath(polygon(points), ink.linear((-wide, top), (wide, low), gold))
    canvas.drawPath(
        curve((-wide, low - 0.005), (0, low + 0.075), (wide, low - 0.005)), ink.stroke((186, 118, 18), 0.03)
    )
    for k, gem in ((-0.6, (206, 30, 60)), (0.0, (40, 110, 220)), (0.6, (206, 30, 60))):
        canvas.drawCircle(wide * k, low - 0.07 + (0.03 if k == 0 else 0), 0.042, ink.fill(gem))
