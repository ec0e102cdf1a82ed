"""Renders scenes to pictures, with the exact place of every face."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import skia
from numpy.typing import NDArray

from visavis.errors import VisavisError
from visavis.storybook.backdrops import draw_backdrop
from visavis.storybook.bodies import draw_body
from visavis.storybook.hair import Hair
from visavis.storybook.heads import Head
from visavis.storybook.people import Person
from visavis.storybook.shots import BACKGROUNDS, Scene, Shot
from visavis.storybook.things import draw_thing

_OVERSAMPLE = 2
# A mask pixel is at least this much head (of 255), so that no rim of background comes along.
_INSIDE = 252
_EVERYWHERE = skia.Rect(-1e4, -1e4, 1e4, 1e4)
_NO_MASK = np.zeros((0, 0), dtype=bool)


@dataclass(frozen=True)
class FaceTruth:
    """Where a face is.

    Attributes:
        person: Index into `Scene.people`.
        box: Forehead to chin, cheek to cheek: x0, y0, x1, y1 in pixels; may reach over the picture's edge.
        landmarks: float32 [5, 2] in pixels: left and right eye, nose, mouth corners, in image order.
        mask: bool [H, W], the visible part of the head with hair and hat; [0, 0] if masks were not asked for.
    """

    person: int
    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """A rendered scene: `image` is uint8 [H, W, 3]; `faces` are in the order of `Scene.people`."""

    image: NDArray[np.uint8]
    faces: tuple[FaceTruth, ...]


class _Figure:
    """One person, recorded as three drawings in pixels: behind the body, the body, in front of it."""

    def __init__(self, person: Person, shot: Shot, width: int, height: int) -> None:
        self.head = Head(person, shot)
        hair = Hair(self.head)
        size = shot.size * height
        middle = (width / 2 + shot.x * height, shot.y * height)
        upright = skia.Matrix.Translate(*middle)
        upright.preScale(size, size)
        self.matrix = skia.Matrix.Translate(*middle)
        self.matrix.preScale(size, size)
        self.matrix.preRotate(float(np.degrees(shot.roll)))
        self.hair_behind = self._record(self.matrix, hair.draw_back)
        self.body = self._record(upright, lambda canvas: draw_body(canvas, self.head))
        self.front = self._record(
            self.matrix,
            self.head.draw_face,
            hair.draw_front,
            self.head.draw_glasses,
            hair.draw_hat,
        )

    @staticmethod
    def _record(matrix: skia.Matrix, *steps) -> skia.Picture:  # type: ignore[no-untyped-def]
        recorder = skia.PictureRecorder()
        canvas = recorder.beginRecording(_EVERYWHERE)
        canvas.concat(matrix)
        for step in steps:
            step(canvas)
        return recorder.finishRecordingAsPicture()

    def draw(self, canvas: skia.Canvas, paint: skia.Paint | None = None) -> None:
        for part in (self.hair_behind, self.body, self.front):
            canvas.drawPicture(part, None, paint)

    def truth(self, index: int, mask: NDArray[np.bool_]) -> FaceTruth:
        outline = skia.Path()
        self.head.outline.transform(self.matrix, outline)
        bounds = outline.computeTightBounds()
        points = [(0.0, -0.40), *self.head.landmarks()]
        mapped = np.array([(p.x(), p.y()) for p in self.matrix.mapPoints([skia.Point(*p) for p in points])])
        box = (bounds.left(), float(mapped[0, 1]), bounds.right(), bounds.bottom())
        return FaceTruth(index, box, mapped[1:].astype(np.float32), mask)


def _surface(width: int, height: int) -> tuple[NDArray[np.uint8], skia.Surface]:
    pixels = np.zeros((height * _OVERSAMPLE, width * _OVERSAMPLE, 4), dtype=np.uint8)
    return pixels, skia.Surface(pixels)


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Averages blocks of 2 x 2 pixels."""
    sums = pixels[0::2].astype(np.uint16)
    sums += pixels[1::2]
    return ((sums[:, 0::2] + sums[:, 1::2] + 2) >> 2).astype(np.uint8)


@lru_cache(maxsize=4)
def _backdrop(name: str, detail: int, width: int, height: int) -> skia.Image:
    """Returns the place as an image; the frames of a clip share it."""
    surface = skia.Surface(width * _OVERSAMPLE, height * _OVERSAMPLE)
    with surface as canvas:
        canvas.scale(_OVERSAMPLE, _OVERSAMPLE)
        canvas.translate(width / 2, 0)
        canvas.scale(height, height)
        draw_backdrop(canvas, name, detail)
    return surface.makeImageSnapshot()


def render(scene: Scene, width: int, height: int, masks: bool = True) -> Picture:
    """Draws a scene. Equal arguments give equal pixels.

    Args:
        scene: What to draw.
        width: Of the picture, in pixels. A wider picture shows more to both sides at the same scale.
        height: Of the picture, in pixels.
        masks: Whether to make the head masks, which takes about a third of the time.

    Raises:
        VisavisError: If the scene's background is unknown.
    """
    if scene.background not in BACKGROUNDS:
        raise VisavisError(
            f"background: unknown background {scene.background!r}",
            fix=f"Use one of {', '.join(BACKGROUNDS)}.",
        )
    pixels, surface = _surface(width, height)
    canvas = surface.getCanvas()
    canvas.drawImage(_backdrop(scene.background, scene.detail, width, height), 0, 0)
    canvas.scale(_OVERSAMPLE, _OVERSAMPLE)
    if scene.things:
        canvas.save()
        canvas.translate(width / 2, 0)
        canvas.scale(height, height)
        for thing in scene.things:
            draw_thing(canvas, thing)
        canvas.restore()
    figures = [_Figure(p, s, width, height) for p, s in zip(scene.people, scene.shots, strict=True)]
    for figure in figures:
        figure.draw(canvas)
    surface.flushAndSubmit()
    image = np.ascontiguousarray(_shrink(pixels[..., :3]))
    faces = []
    for i, figure in enumerate(figures):
        faces.append(figure.truth(i, _mask(figures, i, width, height) if masks else _NO_MASK))
    return Picture(image, tuple(faces))


def _mask(figures: list[_Figure], index: int, width: int, height: int) -> NDArray[np.bool_]:
    """Returns where the head shows: it covers, and neither its own body nor somebody in front covers it."""
    pixels, surface = _surface(width, height)
    canvas = surface.getCanvas()
    canvas.scale(_OVERSAMPLE, _OVERSAMPLE)
    erase = skia.Paint()
    erase.setBlendMode(skia.BlendMode.kDstOut)
    figure = figures[index]
    # Only the head's surroundings, because layers cost time by their area.
    middle, size = figure.matrix.mapPoints([skia.Point(0, 0)])[0], figure.head.shot.size * height
    x, y = middle.x(), middle.y()
    canvas.clipRect(skia.Rect(x - 0.95 * size, y - 1.2 * size, x + 0.95 * size, y + 1.25 * size))
    canvas.drawPicture(figure.hair_behind)
    canvas.drawPicture(figure.body, None, erase)
    canvas.drawPicture(figure.front)
    for other in figures[index + 1 :]:
        other.draw(canvas, erase)
    surface.flushAndSubmit()
    inside: NDArray[np.bool_] = _shrink(pixels[..., 3:])[..., 0] >= _INSIDE
    return inside
