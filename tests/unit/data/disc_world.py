"""A world of coloured discs on real MP4 files, and models that look at its pixels: only the model edge is faked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np

HUES = {"red": 0, "yellow": 30, "green": 60, "cyan": 90, "blue": 120, "pink": 150}
WIDTH, HEIGHT, FPS, FRAMES = 192, 128, 24, 30


@dataclass(frozen=True)
class Disc:
    """A "person": a bright disc; the hue is the identity. Position in px of a 192 x 128 frame."""

    hue: str
    x: float
    y: float = 60.0
    radius: float = 20.0


def backdrop(shade: int, seed: int = 0) -> np.ndarray:
    """Returns a dull picture, its texture set by the seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(max(shade - 40, 0), min(shade + 40, 255), (4, 6), np.uint8)
    gray = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.repeat(gray[..., None], 3, 2)


def paint(discs: list[Disc], ground: np.ndarray) -> np.ndarray:
    image = ground.copy()
    for disc in discs:
        colour = cv2.cvtColor(np.uint8([[[HUES[disc.hue], 255, 230]]]), cv2.COLOR_HSV2RGB)[0, 0].tolist()
        cv2.circle(image, (round(disc.x), round(disc.y)), round(disc.radius), colour, -1, cv2.LINE_AA)
    return image


def write_clip(
    path: Path,
    first: list[Disc],
    last: list[Disc] | None = None,
    *,
    ground: np.ndarray | None = None,
    cut_to: tuple[list[Disc], np.ndarray] | None = None,
    frames: int = FRAMES,
    faststart: bool = False,
    crf: int = 18,
) -> Path:
    """Writes an MP4 in which the discs move from `first` to `last`; `cut_to` replaces the second half."""
    last = last or [Disc(d.hue, d.x + 3, d.y + 2, d.radius) for d in first]
    ground = backdrop(90) if ground is None else ground
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": str(crf), "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            part = index / max(frames - 1, 1)
            discs = [
                Disc(a.hue, a.x + (b.x - a.x) * part, a.y + (b.y - a.y) * part, a.radius)
                for a, b in zip(first, last, strict=True)
            ]
            if cut_to is not None and part > 0.5:
                image = paint(*cut_to)
            elif index == frames - 1:
                image = paint(last, ground)
            else:
                image = paint(discs, ground)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def discs_in(rgb: np.ndarray) -> list[tuple[str, tuple[int, int, int, int], np.ndarray]]:
    """Finds the discs of a picture: hue name, box x, y, w, h, and mask."""
    hsv = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2HSV)
    bright = (hsv[..., 1] > 150) & (hsv[..., 2] > 120)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8))
    found = []
    for index in range(1, count):
        x, y, w, h, area = stats[index].tolist()
        if area < 60:
            continue
        mask = labels == index
        hue = float(np.median(hsv[..., 0][mask]))
        name = min(HUES, key=lambda n: min(abs(HUES[n] - hue), 180 - abs(HUES[n] - hue)))
        found.append((name, (x, y, w, h), mask))
    return found


class DiscFaces:
    """Stands for insightface's `FaceAnalysis`: finds discs in the pixels and embeds their hue."""

    def __init__(self) -> None:
        self.calls = 0

    def get(self, img: np.ndarray) -> list[Any]:
        self.calls += 1
        faces = []
        for name, (x, y, w, h), _ in discs_in(img[..., ::-1]):
            embedding = np.full(len(HUES), 0.05)
            embedding[list(HUES).index(name)] = 1.0
            kps = np.array([[x, y], [x + w, y], [x + w / 2, y + h / 2], [x, y + h], [x + w, y + h]], float)
            faces.append(
                SimpleNamespace(
                    bbox=np.array([x, y, x + w, y + h], np.float32),
                    kps=kps,
                    det_score=0.9,
                    normed_embedding=embedding / np.linalg.norm(embedding),
                )
            )
        return faces


class DiscTalker:
    """Stands for a chat model over pictures: names what it sees in the middle, and the shade of the ground."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: list[np.ndarray], question: str) -> list[str]:
        self.calls += 1
        return [self._answer(image, question) for image in images]

    def _answer(self, image: np.ndarray, question: str) -> str:
        if "Where" in question:
            return "on the beach" if image.mean() > 110 else "In the forest."
        middle = image.shape[0] / 2
        seen = [(abs(x + w / 2 - middle), name) for name, (x, _, w, _), _ in discs_in(image)]
        if not seen:
            return ""
        name = min(seen)[1]
        return f"Short {name} hair, round {name} glasses, a {name} cap"


class DiscSegmenter:
    """Stands for `segment_anything.SamPredictor`: returns the disc under each box."""

    def __init__(self, iou: float = 0.95) -> None:
        self.images = 0
        self.iou = iou
        self.device = "cpu"
        self.transform = SimpleNamespace(apply_boxes_torch=lambda boxes, size: boxes)

    def set_image(self, image: np.ndarray) -> None:
        self.images += 1
        self.image = image

    def predict_torch(self, point_coords, point_labels, boxes, multimask_output):
        import torch

        found = discs_in(self.image)
        masks = []
        for box in boxes.tolist():
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            near = min(found, key=lambda f: abs(f[1][0] + f[1][2] / 2 - middle[0]), default=None)
            masks.append(np.zeros(self.image.shape[:2], bool) if near is None else near[2])
        scores = torch.full((len(masks), 1), self.iou)
        return torch.from_numpy(np.stack(masks))[:, None], scores, None


def make_source(root: Path, clips: int = 8) -> Path:
    """Writes a folder of good clips of ever other people, and two natural pictures."""
    from itertools import combinations

    pairs = list(combinations(HUES, 2))
    for index in range(clips):
        one, two = pairs[(index * 4) % len(pairs)]
        ground = backdrop(60 + 90 * (index % 2), seed=index)
        write_clip(root / "clips" / f"{index:03d}.mp4", [Disc(one, 60), Disc(two, 125)], ground=ground)
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    for index in range(2):
        cv2.imwrite(str(root / "pictures" / f"{index}.png"), backdrop(128, seed=100 + index))
    return root
