"""The face: outline, skin, features, beard and glasses, in face heights around the face's middle."""

from __future__ import annotations

import math

import skia

from visavis.storybook import people
from visavis.storybook.ink import WHITE, Ink, Point, curve, darker, lighter, mix, smooth
from visavis.storybook.people import Colour, Person
from visavis.storybook.shots import Shot

# Expression: smile in [-1, 1], mouth opening, brow lift, how far the eyes open, width of the mouth.
_EXPRESSIONS: dict[str, tuple[float, float, float, float, float]] = {
    "neutral": (0.0, 0.0, 0.0, 1.0, 0.9),
    "smile": (0.8, 0.0, 0.006, 0.92, 1.08),
    "laugh": (0.8, 0.75, 0.016, 0.78, 1.12),
    "sad": (-0.85, 0.0, 0.010, 0.86, 0.85),
    "surprised": (0.0, 1.0, 0.032, 1.22, 0.52),
    "wink": (0.7, 0.0, 0.0, 0.96, 1.0),
}


def shaded(colour: Colour, shade: float, amount: float = 0.16) -> Colour:
    """Returns a colour a little lighter (shade > 0) or darker (shade < 0)."""
    return lighter(colour, shade * amount) if shade > 0 else darker(colour, -shade * amount)


class Head:
    """One person's head in one shot: knows where the turned features lie and draws them.

    `at(x, y)` maps a point of the face seen from the front to its place on the turned head.
    """

    def __init__(self, person: Person, shot: Shot) -> None:
        self.person, self.shot = person, shot
        self.ink = Ink(shot.brightness, shot.warmth)
        self.skin = shaded(people.SKIN_TONES[person.skin], person.skin_shade, 0.1)
        self.hair = shaded(people.HAIR_COLOURS[person.hair_colour], person.hair_shade, 0.12)
        self.half = person.face_width / 2
        self._sin, self._cos = math.sin(0.75 * shot.yaw), math.cos(0.75 * shot.yaw)
        self.nose_y = min(person.eye_y + person.nose_length + 0.03, person.mouth_y - 0.085)
        self.outline = self._outline()

    def at(self, x: float, y: float, lift: float = 0.0) -> Point:
        """Returns where a point of the frontal face lies; `lift` is how far it stands out (the nose)."""
        radius = self.half * 1.08
        depth = radius * math.sqrt(max(0.0, 1 - (x / radius) ** 2 - (y / 0.8) ** 2)) + lift
        return x * self._cos + depth * self._sin, y + 0.16 * self.shot.pitch * depth

    def _outline(self) -> skia.Path:
        p, w, turn = self.person, self.half, self.shot.yaw
        right = [
            (w * 0.55, -0.47),
            (w * p.forehead, -0.27),
            (w, p.cheek_y),
            (w * (0.35 + 0.65 * p.jaw), 0.25),
            (w * (p.chin + 0.16), 0.445),
        ]
        slant = [-0.03, -0.02, 0.0, 0.03, 0.07]
        points: list[Point] = [(-0.04 * turn, -0.5)]
        points += [(x + s * turn, y) for (x, y), s in zip(right, slant, strict=True)]
        points.append((0.09 * turn, 0.5))
        points += [(-x + s * turn, y) for (x, y), s in reversed(list(zip(right, slant, strict=True)))]
        return smooth(points)

    def landmarks(self) -> list[Point]:
        """Returns left eye, right eye, nose tip and the mouth corners (image order) before leaning."""
        p = self.person
        left, right = self._mouth_corners()
        return [
            self.at(-p.eye_spacing, p.eye_y),
            self.at(p.eye_spacing, p.eye_y),
            self.at(0, self.nose_y, 0.06),
            left,
            right,
        ]

    def draw_face(self, canvas: skia.Canvas) -> None:
        """Draws ears, skin and all features, but no hair and no hat."""
        ink, p, w = self.ink, self.person, self.half
        turn = self.shot.yaw
        for side in (-1, 1):
            x, y, r = side * (w - 0.004) - 0.08 * turn, p.eye_y + p.ear_y + 0.02, p.ear_size
            for part, shadow in ((1.0, 0.1), (0.55, 0.28)):
                ear = skia.Rect(x - r * 0.55 * part, y - r * part, x + r * 0.55 * part, y + r * part)
                canvas.drawOval(ear, ink.fill(darker(self.skin, shadow)))
        tones = [lighter(self.skin, 0.14), self.skin, darker(self.skin, 0.2)]
        canvas.drawPath(self.outline, ink.linear((-w, -0.45), (w * 0.9, 0.5), tones))
        blush = mix(self.skin, (226, 70, 70), 0.55)
        for side in (-1, 1):
            centre = self.at(side * p.eye_spacing * 1.15, 0.19)
            canvas.drawCircle(*centre, 0.13, ink.glow(centre, 0.13, blush, 105))
        if p.mole_side:
            mole = self.at(p.mole_side * p.mole_x, p.mole_y)
            canvas.drawCircle(*mole, 0.023, ink.fill(darker(self.skin, 0.72)))
        self._nose(canvas)
        if p.facial_hair != "none":
            self._facial_hair(canvas)
        self._mouth(canvas)
        self._eyes(canvas)

    def _nose(self, canvas: skia.Canvas) -> None:
        p, ink = self.person, self.ink
        y, width = self.nose_y, p.nose_width
        shadow_side = 1 if self.shot.yaw >= -0.05 else -1
        side = self.at(shadow_side * width * 0.45, p.eye_y + 0.02)
        wing = self.at(shadow_side * width, y, 0.02)
        bridge = curve(side, ((side[0] + wing[0]) / 2, (side[1] + wing[1]) / 2), wing)
        canvas.drawPath(bridge, ink.stroke(darker(self.skin, 0.34), 0.018, 130))
        tip = self.at(0, y, 0.06)
        left, right = self.at(-width, y, 0.03), self.at(width, y, 0.03)
        base = curve(left, (tip[0], tip[1] + 0.055), right)
        canvas.drawPath(base, ink.stroke(darker(self.skin, 0.46), 0.026))
        canvas.drawCircle(tip[0] - 0.008, tip[1] - 0.022, 0.026, ink.fill(lighter(self.skin, 0.5), 120))

    def _mouth_corners(self) -> tuple[Point, Point]:
        p = self.person
        smile, _, _, _, wide = _EXPRESSIONS[self.shot.expression]
        x, y = p.mouth_width * wide, p.mouth_y - 0.035 * smile
        return self.at(-x, y), self.at(x, y)

    def _mouth(self, canvas: skia.Canvas) -> None:
        p, ink = self.person, self.ink
        smile, opening, _, _, _ = _EXPRESSIONS[self.shot.expression]
        left, right = self._mouth_corners()
        mx, my = self.at(0, p.mouth_y + 0.035 * smile, 0.02)
        lip = p.lip_thickness
        colour = mix(people.LIPS[p.lips], self.skin, 0.28 if p.lips == "natural" else 0.06)
        if p.lips == "natural":
            colour = darker(colour, 0.14)
        if opening:
            top = -0.045 if self.shot.expression == "surprised" else 0.0
            hole = skia.Path()
            hole.moveTo(*left)
            hole.quadTo(mx, my + top * 2 - 0.005, *right)
            hole.quadTo(mx + 0.01, my + 0.17 * opening + 0.05, *left)
            hole.close()
            canvas.drawPath(hole, ink.fill((92, 14, 30)))
            canvas.save()
            canvas.clipPath(hole, skia.ClipOp.kIntersect, True)
            canvas.drawCircle(mx, my + 0.13 * opening + 0.03, 0.07, ink.fill((226, 92, 104)))
            if self.shot.expression == "laugh":
                teeth = curve(left, (mx, my - 0.005), right)
                canvas.drawPath(teeth, ink.stroke((252, 252, 248), 0.062))
            canvas.restore()
            canvas.drawPath(hole, ink.stroke(colour, 0.014 + lip * 0.45))
            return
        upper = skia.Path()
        upper.moveTo(*left)
        upper.cubicTo(mx - 0.05, my - lip * 1.7, mx - 0.02, my - lip * 1.5, mx, my - lip * 0.8)
        upper.cubicTo(mx + 0.02, my - lip * 1.5, mx + 0.05, my - lip * 1.7, *right)
        upper.quadTo(mx, my + 0.02 * smile, *left)
        canvas.drawPath(upper, ink.fill(darker(colour, 0.12)))
        lower = skia.Path()
        lower.moveTo(*left)
        lower.quadTo(mx, my + 0.02 * smile, *right)
        lower.quadTo(mx, my + lip * 2.8, *left)
        canvas.drawPath(lower, ink.fill(colour))
        line = curve(left, (mx, my + 0.02 * smile), right)
        canvas.drawPath(line, ink.stroke(darker(colour, 0.6), 0.018))

    def _eyes(self, canvas: skia.Canvas) -> None:
        p, ink = self.person, self.ink
        _, _, lift, wide, _ = _EXPRESSIONS[self.shot.expression]
        lash = ink.stroke((30, 20, 26), p.lashes)
        brow_colour = darker(self.hair, 0.3) if p.hair_style != "bald" else darker(self.skin, 0.62)
        brow = ink.stroke(brow_colour, p.brow_thickness)
        sad = 0.22 if self.shot.expression == "sad" else 0.0
        for side in (-1, 1):
            opening = p.eye_height * wide
            if self.shot.blink or (self.shot.expression == "wink" and side == 1):
                opening = 0.0
            tilt = math.tan(p.eye_tilt) * p.eye_width * 0.6
            inner = self.at(side * (p.eye_spacing - p.eye_width), p.eye_y + tilt)
            outer = self.at(side * (p.eye_spacing + p.eye_width), p.eye_y - tilt)
            centre = self.at(side * p.eye_spacing, p.eye_y)
            if p.glasses != "sunglasses":
                self._eye(canvas, inner, centre, outer, opening, lash)
            angle = math.tan(p.brow_tilt - sad) * p.brow_width * 0.5
            y = p.eye_y - p.brow_height - lift
            start = self.at(side * (p.eye_spacing - p.brow_width), y + angle)
            end = self.at(side * (p.eye_spacing + p.brow_width), y - angle)
            middle = self.at(side * (p.eye_spacing + 0.02), y - p.brow_arch)
            canvas.drawPath(curve(start, middle, end), brow)

    def _eye(
        self, canvas: skia.Canvas, inner: Point, centre: Point, outer: Point, opening: float, lash: skia.Paint
    ) -> None:
        p, ink, (cx, cy) = self.person, self.ink, centre
        if not opening:
            canvas.drawPath(curve(inner, (cx, cy + 0.06), outer), lash)
            return
        top, bottom = cy - opening * 1.9, cy + opening * 1.5
        white = skia.Path()
        white.moveTo(*inner)
        white.quadTo(cx, top, *outer)
        white.quadTo(cx, bottom, *inner)
        white.close()
        canvas.drawPath(white, ink.fill((252, 252, 252)))
        canvas.save()
        canvas.clipPath(white, skia.ClipOp.kIntersect, True)
        x, y = cx + 0.016 * self.shot.gaze, cy - 0.006
        iris = people.EYE_COLOURS[p.eye_colour]
        canvas.drawCircle(x, y, p.iris, ink.fill(darker(iris, 0.4)))
        canvas.drawCircle(x, y + 0.004, p.iris * 0.78, ink.fill(lighter(iris, 0.12)))
        canvas.drawCircle(x, y, p.iris * 0.46, ink.fill((16, 12, 18)))
        canvas.drawCircle(x - 0.016, y - 0.018, 0.014, ink.fill(WHITE))
        canvas.restore()
        canvas.drawPath(curve(inner, (cx, top), outer), lash)

    def _facial_hair(self, canvas: skia.Canvas) -> None:
        p, ink, w = self.person, self.ink, self.half
        colour = shaded(people.HAIR_COLOURS[p.facial_hair_colour], p.facial_hair_shade, 0.14)
        paint = ink.linear((0, 0.1), (0, 0.55), [lighter(colour, 0.08), darker(colour, 0.18)])
        lip_y = p.mouth_y - 0.03
        if p.facial_hair == "beard":
            turn, jaw = self.shot.yaw, 0.35 + 0.65 * p.jaw
            cheek = p.mouth_width + 0.09
            outside: list[Point] = [
                (w * 1.0, 0.04),
                (w * jaw * 1.02 + 0.03 * turn, 0.27),
                (w * (p.chin + 0.2) + 0.07 * turn, 0.47),
                (0.09 * turn, 0.555),
                (-w * (p.chin + 0.2) + 0.07 * turn, 0.47),
                (-w * jaw * 1.02 + 0.03 * turn, 0.27),
                (-w * 1.0, 0.04),
            ]
            inside = [
                self.at(-w * 0.86, 0.12),
                self.at(-cheek, lip_y - 0.02),
                self.at(-0.07, lip_y - 0.035),
                self.at(0, lip_y - 0.02),
                self.at(0.07, lip_y - 0.035),
                self.at(cheek, lip_y - 0.02),
                self.at(w * 0.86, 0.12),
            ]
            canvas.drawPath(smooth(outside + inside), paint)
        tip = p.mouth_width * 1.15
        lips = [
            self.at(-tip, lip_y + 0.05),
            self.at(-tip * 0.55, lip_y - 0.035),
            self.at(0, lip_y - 0.032, 0.02),
            self.at(tip * 0.55, lip_y - 0.035),
            self.at(tip, lip_y + 0.05),
            self.at(tip * 0.4, lip_y + 0.022),
            self.at(0, lip_y + 0.012, 0.02),
            self.at(-tip * 0.4, lip_y + 0.022),
        ]
        canvas.drawPath(smooth(lips), ink.fill(darker(colour, 0.06)))

    def draw_glasses(self, canvas: skia.Canvas) -> None:
        """Draws the glasses, if the person wears any."""
        p, ink = self.person, self.ink
        if p.glasses == "none":
            return
        dark = p.glasses == "sunglasses"
        colour = people.GLASSES_COLOURS[p.glasses_colour]
        frame = ink.stroke(colour, 0.034)
        glass = ink.fill((26, 24, 34)) if dark else ink.fill(WHITE, 46)
        edges = []
        for side in (-1, 1):
            x, y = self.at(side * p.eye_spacing, p.eye_y + 0.008)
            half = min(0.128, p.eye_spacing - 0.028) * (0.9 + 0.1 * self._cos)
            tall = half * (1.0 if p.glasses == "round" else 0.74)
            corner = tall if p.glasses == "round" else 0.05 if dark else 0.022
            lens = skia.Rect(x - half, y - tall, x + half, y + tall)
            canvas.drawRoundRect(lens, half if p.glasses == "round" else corner, corner, glass)
            canvas.drawRoundRect(lens, half if p.glasses == "round" else corner, corner, frame)
            edges.append((x, y, half))
            temple = side * (self.half - 0.01)
            canvas.drawLine(x + side * half, y - 0.02, temple, y - 0.03, frame)
            if dark:
                canvas.drawLine(x - 0.05, y - 0.03, x, y - 0.05, ink.stroke(WHITE, 0.02, 150))
        (lx, ly, lh), (rx, ry, rh) = edges
        canvas.drawPath(curve((lx + lh, ly - 0.01), ((lx + rx) / 2, ly - 0.05), (rx - rh, ry - 0.01)), frame)
