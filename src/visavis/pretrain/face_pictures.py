"""Pictures that the face parts learn from: scenes with their truth, aligned faces, and close-ups.

Everything is drawn once into memory maps under the working folder; a set that was cut off is drawn further.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from insightface.utils.face_align import estimate_norm
from numpy.typing import NDArray
from tqdm import tqdm

from visavis.files import read_json, write_json
from visavis.storybook.draw import Picture, render
from visavis.storybook.people import Person, sample_person
from visavis.storybook.shots import sample_scene

SIDE = 128
"""Height of a frame, and side of the square that both people of a pair fit in, in pixels."""

WIDE = 192
MOST_FACES = 3
TRAIN_PEOPLE, UNSEEN_PEOPLE = 0, 10**6
"""First seeds of the people to learn from and of those to judge by; a million each."""

GRAY = 128
_LAYOUTS = {
    "pair": 0.36,
    "portrait": 0.13,
    "one": 0.13,
    "full_body": 0.12,
    "pair_far": 0.06,
    "three": 0.12,
    "empty": 0.08,
}
_PEOPLE = {"empty": 0, "portrait": 1, "one": 1, "full_body": 1, "pair": 2, "pair_far": 2, "three": 3}
_LASTING = (
    "skin", "skin_shade", "hair_colour", "hair_shade", "hair_style", "hair_volume", "hair_part", "glasses",
    "glasses_colour",
)  # fmt: skip

_SHAPE = (
    "face_width", "forehead", "cheek_y", "jaw", "chin", "eye_y", "eye_spacing", "eye_width", "eye_height",
    "eye_tilt", "iris", "lashes", "brow_height", "brow_width", "brow_tilt", "brow_arch", "brow_thickness",
    "nose_length", "nose_width", "mouth_y", "mouth_width", "lip_thickness", "ear_size", "ear_y",
)  # fmt: skip

# An aligned face is kept with a rim around the 112 px that the recogniser sees, to be shifted later.
KEPT, KEPT_SCALE, KEPT_RIM = 96, 0.75, 8.0


def person_of(seed: int) -> Person:
    """Returns the person of a seed; see `TRAIN_PEOPLE`."""
    return sample_person(np.random.default_rng(seed))


def look_alike(person: Person, other: Person) -> Person:
    """Returns `other` with the skin, hair and glasses of `person`."""
    return replace(other, **{name: getattr(person, name) for name in _LASTING})


def twin(person: Person, other: Person) -> Person:
    """Returns `person` with the shape of the face of `other`; all else stays, beard, lips and mole too."""
    return replace(person, **{name: getattr(other, name) for name in _SHAPE})


def shape_of(person: Person) -> NDArray[np.float32]:
    """Returns the shape of a face as numbers [24]: lengths in face heights, angles in radians."""
    return np.array([getattr(person, name) for name in _SHAPE], np.float32)


@dataclass(frozen=True)
class Scenes:
    """Drawn scenes. Faces that a picture does not have are NaN in `boxes` and `points`.

    Attributes:
        pictures: uint8 [N, SIDE, W, 3].
        boxes: float32 [N, MOST_FACES, 4], x0 y0 x1 y1 in pixels.
        points: float32 [N, MOST_FACES, 5, 2], landmarks in pixels.
        masks: uint8 [N, MOST_FACES, SIDE, W / 8], heads, eight pixels a byte (`numpy.packbits`).
    """

    pictures: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    points: NDArray[np.float32]
    masks: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pictures)

    def mask(self, picture: int, face: int) -> NDArray[np.bool_]:
        """Returns the mask [SIDE, W] of the head of a face."""
        return np.unpackbits(self.masks[picture, face], axis=-1).astype(bool)

    def faces(self, picture: int) -> int:
        """Returns how many faces a picture has."""
        return int(np.isfinite(self.boxes[picture, :, 0]).sum())


def draw_scenes(folder: Path, count: int, first_person: int, width: int = SIDE, seed: int = 0) -> Scenes:
    """Draws scenes of all layouts, or opens them if they were drawn before.

    Args:
        folder: Where the memory maps lie.
        count: How many pictures.
        first_person: `TRAIN_PEOPLE` or `UNSEEN_PEOPLE`.
        width: Width of a picture in pixels, a multiple of 8; the height is `SIDE`.
        seed: Other seeds give other scenes and people.
    """
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "pictures": ((count, SIDE, width, 3), "uint8"),
        "boxes": ((count, MOST_FACES, 4), "float32"),
        "points": ((count, MOST_FACES, 5, 2), "float32"),
        "masks": ((count, MOST_FACES, SIDE, width // 8), "uint8"),
    }
    store, todo = _open(folder, shapes, count, f"scenes {width} px")
    names = tuple(_LAYOUTS)
    shares = np.array(list(_LAYOUTS.values()))
    for index in todo:
        rng = np.random.default_rng((first_person, seed, index))
        layout = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        people = tuple(person_of(first_person + int(rng.integers(10**6))) for _ in range(_PEOPLE[layout]))
        picture = render(sample_scene(rng, people, layout, width / SIDE), width, SIDE)
        store["pictures"][index] = picture.image
        store["boxes"][index] = np.nan
        store["points"][index] = np.nan
        for place, face in enumerate(picture.faces):
            store["boxes"][index, place] = face.box
            store["points"][index, place] = face.landmarks
            store["masks"][index, place] = np.packbits(face.mask, axis=-1)
    return Scenes(**store)


@dataclass(frozen=True)
class Crops:
    """Aligned faces: `pixels` uint8 [people, shots, KEPT, KEPT, 4], RGB and the mask of the head."""

    pixels: NDArray[np.uint8]


def training_person(index: int) -> Person:
    """Returns person `index` to learn from: in threes a person, their look-alike and their twin."""
    person = person_of(TRAIN_PEOPLE + index // 3)
    other = person_of(TRAIN_PEOPLE + 500_000 + index)
    return (person, look_alike(person, other), twin(person, other))[index % 3]


def draw_crops(folder: Path, people: int, shots: int, seed: int = 0) -> Crops:
    """Draws `shots` portraits of each person to learn from and keeps the aligned faces; or opens them."""
    store, todo = _open(
        folder, {"pixels": ((people, shots, KEPT, KEPT, 4), "uint8")}, people, "aligned faces"
    )
    for index in todo:
        person = training_person(index)
        for shot in range(shots):
            rng = np.random.default_rng((seed, index, shot))
            picture = render(sample_scene(rng, (person,), "portrait"), SIDE, SIDE)
            store["pixels"][index, shot] = align(picture)
    return Crops(**store)


def align(picture: Picture) -> NDArray[np.uint8]:
    """Returns the first face of a picture as `Crops` keeps it: uint8 [KEPT, KEPT, 4]."""
    face = picture.faces[0]
    layers = np.dstack([picture.image, face.mask.astype(np.uint8) * 255])
    matrix = estimate_norm(face.landmarks.astype(np.float32), 112)
    matrix = KEPT_SCALE * (matrix + np.array([[0, 0, KEPT_RIM], [0, 0, KEPT_RIM]]))
    aligned: Any = cv2.warpAffine(layers, matrix, (KEPT, KEPT), flags=cv2.INTER_LINEAR)
    return aligned


def close_up(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], margin: float = 1.1, gray: int = GRAY, side: int = SIDE
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Cuts a head out by its mask and lets it fill a gray square.

    Args:
        image: uint8 [H, W, 3].
        mask: [H, W], not empty.
        margin: Side of the square over the longer side of the head.
        gray: Level of the background.
        side: Side of the result in pixels.

    Returns:
        uint8 [side, side, 3] and the matrix [2, 3] from pixels of `image` to pixels of the result.
    """
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = ys[0], ys[-1] + 1, xs[0], xs[-1] + 1
    scale = side / (margin * max(bottom - top, right - left))
    matrix = np.array(
        [[scale, 0, (side - scale * (left + right)) / 2], [0, scale, (side - scale * (top + bottom)) / 2]],
        np.float32,
    )
    # Pixel centres, not corners, are at whole numbers for cv2.
    shift = matrix.copy()
    shift[:, 2] += (scale - 1) / 2
    cut: Any = np.where(mask[..., None], image, np.uint8(gray))
    cut = cv2.warpAffine(cut, shift, (side, side), flags=cv2.INTER_LINEAR, borderValue=(gray, gray, gray))
    return cut, matrix


def move_boxes(boxes: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns boxes [..., 4] after a scaling and shift [2, 3]; mirrored boxes keep x0 < x1."""
    corners = boxes.reshape(*boxes.shape[:-1], 2, 2) * matrix.diagonal() + matrix[:, 2]
    return np.sort(corners, axis=-2).reshape(boxes.shape)


def move_points(points: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns points [..., 2] after a scaling and shift [2, 3]."""
    return points * matrix.diagonal() + matrix[:, 2]


def soften(image: NDArray[np.uint8], rng: np.random.Generator, smallest: int = 40) -> NDArray[np.uint8]:
    """Returns a picture as a generator may give it: enlarged, blurred, noisy; sometimes as it is."""
    side = image.shape[0]
    result: Any = image
    if rng.random() < 0.55:
        small = int(rng.integers(smallest, side))
        result = cv2.resize(result, (small, small), interpolation=cv2.INTER_AREA)
        result = cv2.resize(result, (side, side), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        result = cv2.GaussianBlur(result, (0, 0), float(rng.uniform(0.5, 1.6)))
    if rng.random() < 0.5:
        # One value for a block of pixels: a generator errs in patches rather than in single pixels.
        coarse = int(rng.choice([1, 2, 4]))
        noise: Any = rng.normal(0, rng.uniform(1, 12), (side // coarse, side // coarse, 3)).astype(np.float32)
        noise = cv2.resize(noise, (side, side), interpolation=cv2.INTER_LINEAR)
        result = np.clip(result + noise, 0, 255).astype(np.uint8)
    return result


def _open(
    folder: Path, shapes: dict[str, tuple[tuple[int, ...], str]], count: int, label: str
) -> tuple[dict[str, Any], Iterator[int]]:
    """Opens the memory maps of a set; the iterator gives the rows still to be drawn, and notes them."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / "done.json"
    wanted = {name: [list(shape), kind] for name, (shape, kind) in shapes.items()}
    known = read_json(marker) if marker.exists() else {}
    begin = known.get("rows", 0) if known.get("shapes") == wanted else 0
    if begin == 0:
        marker.unlink(missing_ok=True)
    store = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="r+" if begin else "w+", dtype=kind, shape=None if begin else shape
        )
        for name, (shape, kind) in shapes.items()
    }

    def rows() -> Iterator[int]:
        if begin == count:
            return
        for row in tqdm(
            range(begin, count), initial=begin, total=count, desc=f"draw {label}", mininterval=2.0
        ):
            yield row
            if (row + 1) % 500 == 0 or row + 1 == count:
                for array in store.values():
                    array.flush()
                write_json(marker, {"shapes": wanted, "rows": row + 1})

    return store, rows()
