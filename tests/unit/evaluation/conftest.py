"""Fakes that see what a test paints: a face is a patch that is not gray, its colour is its identity."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

GRAY = 128
COLOURS = {
    "olivia": (250, 20, 20),
    "julian": (20, 250, 20),
    "noah": (20, 20, 250),
    "emma": (250, 250, 20),
    "mia": (250, 20, 250),
    "liam": (20, 250, 250),
}


@dataclass
class FakeFace:
    bbox: np.ndarray
    embedding: np.ndarray
    det_score: float


@dataclass
class FakeFaces:
    """Finds painted patches: one, or one in each half of the picture if nothing crosses the middle."""

    det_size: tuple[int, int] = (96, 96)
    misses_full_pictures: bool = False
    seen: list[tuple[int, ...]] = field(default_factory=list)

    def get(self, img: np.ndarray) -> list[FakeFace]:
        self.seen.append(img.shape)
        painted = np.abs(img.astype(int) - GRAY).max(axis=-1) > 40
        if self.misses_full_pictures and painted[0].any():
            return []
        found = []
        middle = img.shape[1] // 2
        crosses = painted[:, middle - 1 : middle + 1].any()
        parts = [(0, img.shape[1])] if crosses else [(0, middle), (middle, img.shape[1])]
        for left, right in parts:
            mask = painted[:, left:right]
            if not mask.any():
                continue
            rows, columns = np.nonzero(mask)
            rgb = img[:, left:right][mask].astype(float).mean(axis=0)[::-1]
            box = np.array(
                [columns.min() + left, rows.min(), columns.max() + left + 1, rows.max() + 1], dtype=float
            )
            found.append(FakeFace(box, (rgb - GRAY) * 3, float(rgb[0]) / 255))
        return found


def paint(colour: tuple[int, int, int] | None, size: int = 48, share: float = 0.5) -> np.ndarray:
    """A gray picture with a square patch in the middle; no patch without a colour."""
    image = np.full((size, size, 3), GRAY, dtype=np.uint8)
    if colour is not None:
        border = round(size * (1 - share) / 2)
        image[border : size - border, border : size - border] = colour
    return image


def person(name: str | None, rng: np.random.Generator | None = None, noise: float = 20) -> np.ndarray:
    """A picture of somebody, a little different each time."""
    if name is None:
        return paint(None)
    colour = np.array(COLOURS[name], dtype=float)
    if rng is not None:
        colour = np.clip(colour + rng.normal(0, noise, 3), 0, 255)
    return paint(tuple(int(c) for c in colour))  # type: ignore[arg-type]


def couple(left: str, right: str, size: int = 48) -> np.ndarray:
    """A picture of two people side by side."""
    image = paint(None, size)
    for name, start in ((left, size // 12), (right, size // 2 + size // 12)):
        image[size // 4 : -size // 4, start : start + size // 3] = COLOURS[name]
    return image


@pytest.fixture
def faces() -> FakeFaces:
    return FakeFaces()
