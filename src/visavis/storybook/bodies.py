"""Neck, clothes, arms and legs, in face heights around the middle of the face."""

from __future__ import annotations

import math

import skia

from visavis.storybook.heads import Head
from visavis.storybook.ink import Ink, Point, curve, darker, lighter, polygon, smooth
from visavis.storybook.people import Colour
from visavis.storybook.shots import CLOTHES_COLOURS

_SOLE, _HIP = 3.3, 1.95


def draw_body(canvas: skia.Canvas, head: Head) -> None:
    """Draws one person from the neck down; what lies below the picture is skipped."""
    shot, ink = head.shot, head.ink
    colour = CLOTHES_COLOURS[shot.clothes_colour]
    # The head leans around the middle of the face, so the neck follows the chin half way.
    canvas.save()
    canvas.translate(-0.3 * math.sin(shot.roll), 0)
    wide = head.person.shoulder_width
    below = (1.0 - shot.y) / shot.size
    if below > _HIP - 0.1:
        _legs(canvas, ink, colour if shot.clothes == "suit" else (58, 72, 112), wide)
    torso: list[Point] = [
        (0.13, 0.6),
        (0.3, 0.70),
        (wide * 0.86, 0.83),
        (wide, 1.02),
        (wide * 0.9, 1.5),
        (wide * 0.84, _HIP + 0.06),
        (0, _HIP + 0.12),
        (-wide * 0.84, _HIP + 0.06),
        (-wide * 0.9, 1.5),
        (-wide, 1.02),
        (-wide * 0.86, 0.83),
        (-0.3, 0.70),
        (-0.13, 0.6),
    ]
    tones = [lighter(colour, 0.16), colour, darker(colour, 0.4)]
    canvas.drawPath(smooth(torso), ink.linear((-wide, 0.7), (wide * 0.9, 1.7), tones))
    if below > 1.4:
        _arms(canvas, ink, head, colour, wide)
    if shot.clothes == "hoodie":
        _hood(canvas, ink, head, colour)
    elif shot.clothes == "suit":
        _suit(canvas, ink, head, colour)
    else:
        _turtleneck(canvas, ink, head, colour)
    canvas.restore()


def _neck(canvas: skia.Canvas, head: Head, bottom: float) -> None:
    paint = head.ink.linear((0, 0.4), (0, 0.72), [darker(head.skin, 0.36), darker(head.skin, 0.1)])
    canvas.drawRoundRect(skia.Rect(-0.15, 0.25, 0.15, bottom), 0.1, 0.1, paint)


def _legs(canvas: skia.Canvas, ink: Ink, colour: Colour, wide: float) -> None:
    for side in (-1, 1):
        leg: list[Point] = [
            (0.0, _HIP - 0.1),
            (side * wide * 0.83, _HIP - 0.1),
            (side * wide * 0.66, _SOLE - 0.1),
            (side * wide * 0.2, _SOLE - 0.1),
        ]
        tones = [lighter(colour, 0.08), darker(colour, 0.32)]
        canvas.drawPath(polygon(leg), ink.linear((-wide, 2.0), (wide, 2.4), tones))
        shoe = skia.Rect(side * wide * 0.47 - 0.23, _SOLE - 0.17, side * wide * 0.47 + 0.23, _SOLE)
        canvas.drawRoundRect(shoe, 0.1, 0.09, ink.fill((52, 40, 44)))


def _arms(canvas: skia.Canvas, ink: Ink, head: Head, colour: Colour, wide: float) -> None:
    for side in (-1, 1):
        out = wide + 0.03 + 0.11 * (0.5 + 0.5 * head.shot.stance * side)
        hand = (side * out, _HIP - 0.08)
        canvas.drawCircle(*hand, 0.125, ink.fill(darker(head.skin, 0.06)))
        arm = curve((side * (wide - 0.14), 1.03), (side * (wide + 0.06), 1.4), (hand[0], hand[1] - 0.1))
        canvas.drawPath(arm, ink.stroke(darker(colour, 0.24 if side > 0 else 0.06), 0.27))


def _hood(canvas: skia.Canvas, ink: Ink, head: Head, colour: Colour) -> None:
    right: list[Point] = [(0.27, 0.5), (0.34, 0.66), (0.2, 0.8)]
    left = [(-x, y) for x, y in reversed(right)]
    canvas.drawPath(smooth([(0, 0.46), *right, *left]), ink.fill(darker(colour, 0.42)))
    _neck(canvas, head, 0.72)
    collar = skia.Path()
    collar.moveTo(-0.3, 0.58)
    collar.quadTo(-0.2, 0.83, 0, 0.85)
    collar.quadTo(0.2, 0.83, 0.3, 0.58)
    canvas.drawPath(collar, ink.stroke(darker(colour, 0.2), 0.125))
    canvas.drawPath(collar, ink.stroke(lighter(colour, 0.06), 0.04))
    for side in (-1, 1):
        canvas.drawLine(side * 0.1, 0.87, side * 0.115, 1.16, ink.stroke(lighter(colour, 0.75), 0.035))
    pocket: list[Point] = [(-0.3, 1.52), (0.3, 1.52), (0.42, 1.84), (-0.42, 1.84)]
    canvas.drawPath(polygon(pocket), ink.fill(darker(colour, 0.28), 150))


def _suit(canvas: skia.Canvas, ink: Ink, head: Head, colour: Colour) -> None:
    shirt: list[Point] = [(-0.24, 0.58), (0.24, 0.58), (0.05, 1.42), (-0.05, 1.42)]
    canvas.drawPath(polygon(shirt), ink.fill((250, 250, 250)))
    _neck(canvas, head, 0.7)
    for side in (-1, 1):
        tip: list[Point] = [(side * 0.2, 0.56), (side * 0.22, 0.74), (side * 0.07, 0.84), (0, 0.7)]
        canvas.drawPath(polygon(tip), ink.fill((226, 228, 236)))
    tie_colour = (180, 24, 44) if head.shot.clothes_colour not in ("red", "orange") else (38, 60, 132)
    canvas.drawPath(polygon([(-0.06, 0.72), (0.06, 0.72), (0.04, 0.82), (-0.04, 0.82)]), ink.fill(tie_colour))
    tie: list[Point] = [(-0.04, 0.82), (0.04, 0.82), (0.085, 1.28), (0, 1.4), (-0.085, 1.28)]
    canvas.drawPath(polygon(tie), ink.fill(darker(tie_colour, 0.12)))
    for side in (-1, 1):
        lapel: list[Point] = [
            (side * 0.21, 0.57),
            (side * 0.4, 0.72),
            (side * 0.36, 0.98),
            (side * 0.29, 1.03),
            (side * 0.02, 1.46),
        ]
        canvas.drawPath(polygon(lapel), ink.fill(darker(colour, 0.2) if side > 0 else lighter(colour, 0.1)))
    canvas.drawLine(0.0, 1.44, 0.0, _HIP + 0.06, ink.stroke(darker(colour, 0.5), 0.025))
    canvas.drawCircle(0.0, 1.56, 0.03, ink.fill(darker(colour, 0.6)))


def _turtleneck(canvas: skia.Canvas, ink: Ink, head: Head, colour: Colour) -> None:
    _neck(canvas, head, 0.7)
    collar = skia.Rect(-0.2, 0.555, 0.2, 0.75)
    tones = [lighter(colour, 0.22), darker(colour, 0.24)]
    canvas.drawRoundRect(collar, 0.07, 0.07, ink.linear((-0.2, 0), (0.2, 0), tones))
    line = ink.stroke(darker(colour, 0.4), 0.014, 130)
    for x in (-0.1, 0.0, 0.1):
        canvas.drawLine(x, 0.58, x, 0.73, line)
    half = head.person.shoulder_width * 0.88
    for y in (1.12, 1.24):
        stripe = curve((-half, y), (0, y + 0.05), (half, y))
        canvas.drawPath(stripe, ink.stroke(lighter(colour, 0.5), 0.06, 150))
