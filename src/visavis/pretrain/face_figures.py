"""How good the face parts are on people they never saw, measured through insightface itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from visavis.pretrain.face_pictures import (
    SIDE,
    UNSEEN_PEOPLE,
    WIDE,
    close_up,
    look_alike,
    move_boxes,
    move_points,
    person_of,
    soften,
    twin,
)
from visavis.storybook.draw import FaceTruth, Picture, render
from visavis.storybook.people import Person
from visavis.storybook.shots import sample_scene

if TYPE_CHECKING:
    from insightface.app import FaceAnalysis

Image = NDArray[np.uint8]
_COUNTS = {"empty": 0, "portrait": 1, "one": 1, "full_body": 1, "pair": 2, "pair_far": 2, "three": 3}


def soft(picture: Image, rng: np.random.Generator) -> Image:
    """Returns a picture as soft as a generated one: 64 px or less, and noisy."""
    return soften(soften(picture, rng), rng)


def closeup_of(picture: Picture, face: FaceTruth, size: int = SIDE) -> tuple[Image, NDArray[np.float32]]:
    """Returns the close-up of a face by its true mask, and the matrix from the picture to it."""
    return close_up(picture.image, face.mask, margin=1.16, side=size)


def box_in(face: FaceTruth, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the box [4] of a face after a scaling and shift [2, 3]."""
    return move_boxes(np.asarray(face.box, np.float32), matrix)


@dataclass(frozen=True)
class _View:
    """A picture of unseen people with the true boxes [faces, 4] and landmarks [faces, 5, 2]."""

    image: Image
    boxes: NDArray[np.float32]
    points: NDArray[np.float32]


def _views(rng: np.random.Generator) -> dict[str, Callable[[], _View]]:
    """Returns what the pipeline shows to the detector: name -> a function that draws the next one."""

    def scene(layout: str, width: int, height: int) -> Picture:
        people = tuple(person_of(UNSEEN_PEOPLE + int(rng.integers(10**6))) for _ in range(_COUNTS[layout]))
        return render(sample_scene(rng, people, layout, width / height), width, height)

    def whole(layout: str, width: int, height: int, blur: bool = False) -> _View:
        picture = scene(layout, width, height)
        boxes = np.array([face.box for face in picture.faces], np.float32).reshape(-1, 4)
        points = np.array([face.landmarks for face in picture.faces], np.float32).reshape(-1, 5, 2)
        return _View(soft(picture.image, rng) if blur else picture.image, boxes, points)

    def closeup(size: int, blur: bool = False) -> _View:
        picture = scene("pair", SIDE, SIDE)
        face = picture.faces[int(rng.integers(2))]
        image, matrix = closeup_of(picture, face, size)
        points = move_points(face.landmarks, matrix)
        return _View(soft(image, rng) if blur else image, box_in(face, matrix)[None], points[None])

    views: dict[str, Callable[[], _View]] = {
        f"{layout}_128": partial(whole, layout, SIDE, SIDE) for layout in _COUNTS
    }
    views |= {f"{layout}_64": partial(whole, layout, 64, 64) for layout in ("pair", "portrait", "empty")}
    return views | {
        "frame_192x128": partial(whole, "pair", WIDE, SIDE),
        "far_frame_192x128": partial(whole, "pair_far", WIDE, SIDE),
        "pair_soft": partial(whole, "pair", SIDE, SIDE, blur=True),
        "closeup_128": partial(closeup, SIDE),
        "closeup_64": partial(closeup, 64),
        "closeup_soft": partial(closeup, SIDE, blur=True),
    }


def detection_figures(faces: FaceAnalysis, count: int = 100, seed: int = 0) -> dict[str, float]:
    """Measures the detector on `count` pictures of each kind.

    Returns:
        Over all views and for each: `recall` at IoU 0.5, `false` finds a picture and, over the faces found,
        `iou` and the landmark error `off` (mean distance over the square root of the area of the face).
    """
    rng = np.random.default_rng((UNSEEN_PEOPLE, seed))
    figures: dict[str, float] = {}
    rows: list[tuple[float, float, float]] = []
    false_total = pictures = 0
    for name, view in tqdm(_views(rng).items(), desc="judge detection", unit="view"):
        judged: list[tuple[float, float, float]] = []
        false = 0
        for _ in range(count):
            truth = view()
            found, points = faces.det_model.detect(np.ascontiguousarray(truth.image[..., ::-1]))
            shares = overlap(truth.boxes, found[:, :4])
            for face, box in enumerate(truth.boxes):
                best = int(shares[face].argmax()) if len(found) else -1
                if best < 0 or shares[face, best] < 0.5:
                    judged.append((0.0, np.nan, np.nan))
                    continue
                off = np.linalg.norm(points[best] - truth.points[face], axis=-1).mean()
                judged.append(
                    (1.0, float(shares[face, best]), float(off / np.sqrt(np.prod(box[2:] - box[:2]))))
                )
            false += len(found) - int((shares >= 0.5).any(0).sum())
        if judged:
            figures |= {f"{key}/{name}": value for key, value in _means(judged).items()}
        figures[f"false/{name}"] = false / count
        rows += judged
        false_total, pictures = false_total + false, pictures + count
    return {**_means(rows), "false": false_total / pictures, **figures}


def _means(rows: list[tuple[float, float, float]]) -> dict[str, float]:
    recall, share, off = np.array(rows).T
    found = recall > 0
    mean = {"iou": share[found].mean(), "off": off[found].mean()} if found.any() else {}
    return {"recall": float(recall.mean()), **{name: float(value) for name, value in mean.items()}}


def overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the IoU [n, m] of boxes [n, 4] and [m, 4]."""
    both = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.clip(both, 0, None).prod(-1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-6)


_CLEAN = ("pair_128", "portrait_128", "closeup_128")
_SHOTS = 2


def _shown(person: Person, rng: np.random.Generator) -> dict[str, tuple[Image, NDArray[np.float32]]]:
    """Shows a person in a new scene of each kind: view -> picture and true box."""

    def scene(layout: str, size: int) -> tuple[Picture, FaceTruth]:
        people = (person, person_of(UNSEEN_PEOPLE + int(rng.integers(10**6))))[: _COUNTS[layout]]
        drawn = sample_scene(rng, people, layout)
        picture = render(drawn, size, size)
        return picture, next(face for face in picture.faces if drawn.people[face.person] == person)

    def whole(layout: str, size: int) -> tuple[Image, NDArray[np.float32]]:
        picture, face = scene(layout, size)
        return picture.image, np.asarray(face.box, np.float32)

    def closeup() -> tuple[Image, NDArray[np.float32]]:
        picture, face = scene("pair", SIDE)
        image, matrix = closeup_of(picture, face)
        return image, box_in(face, matrix)

    soft_closeup, soft_box = closeup()
    return {
        "pair_128": whole("pair", SIDE),
        "portrait_128": whole("portrait", SIDE),
        "closeup_128": closeup(),
        "pair_64": whole("pair", 64),
        "closeup_soft": (soft(soft_closeup, rng), soft_box),
    }


def _embed(faces: FaceAnalysis, person: Person, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Returns view -> embedding [256], normalised, of a new shot each; without views that miss the face."""
    embeddings = {}
    for name, (image, box) in _shown(person, rng).items():
        found = faces.get(np.ascontiguousarray(image[..., ::-1]))
        shares = [float(overlap(box[None], face.bbox[None])[0, 0]) for face in found]
        if shares and max(shares) >= 0.5:
            embeddings[name] = found[int(np.argmax(shares))].normed_embedding
    return embeddings


def recognition_figures(faces: FaceAnalysis, people: int = 150, seed: int = 0) -> dict[str, float]:
    """Measures verification on unseen people: area under the ROC curve of the cosine.

    Same: two different shots of a person. Different: another person at random (`auc`), one with the same
    skin, hair and glasses (`auc_look_alike`), or one of whom all but the shape of the face is the same
    (`auc_twin`). These compare sharp pictures at 128 px; `auc/<view>` compares that view with sharp ones,
    against random people.
    """
    rng = np.random.default_rng((UNSEEN_PEOPLE, seed, 1))
    kinds: dict[str, list[list[dict[str, NDArray[np.float32]]]]] = {"self": [], "look_alike": [], "twin": []}
    for _ in tqdm(range(people), desc="judge recognition", unit="person"):
        person, other = (person_of(UNSEEN_PEOPLE + int(rng.integers(10**6))) for _ in range(2))
        for kind, who in (
            ("self", person),
            ("look_alike", look_alike(person, other)),
            ("twin", twin(person, other)),
        ):
            kinds[kind].append([_embed(faces, who, rng) for _ in range(_SHOTS)])
    views = (*_CLEAN, "pair_64", "closeup_soft")
    same: dict[str, list[float]] = {view: [] for view in views}
    strangers: dict[str, list[float]] = {view: [] for view in views}
    near: dict[str, list[float]] = {"look_alike": [], "twin": []}
    for index in range(people):
        first, second = kinds["self"][index]
        stranger = kinds["self"][(index + 1) % people][0]
        for view in views:
            same[view] += _cosines(first, second, view)
            strangers[view] += _cosines(first, stranger, view)
        for kind, cosines in near.items():
            for view in _CLEAN:
                cosines += _cosines(first, kinds[kind][index][0], view)
    alike = [cosine for view in _CLEAN for cosine in same[view]]
    apart = [cosine for view in _CLEAN for cosine in strangers[view]]
    return {
        "auc": area_under_roc(alike, apart),
        "auc_look_alike": area_under_roc(alike, near["look_alike"]),
        "auc_twin": area_under_roc(alike, near["twin"]),
        "cosine_same": float(np.mean(alike)),
        "cosine_stranger": float(np.mean(apart)),
        "cosine_look_alike": float(np.mean(near["look_alike"])),
        "cosine_twin": float(np.mean(near["twin"])),
        **{f"auc/{view}": area_under_roc(same[view], strangers[view]) for view in views},
    }


def _cosines(
    first: dict[str, NDArray[np.float32]], second: dict[str, NDArray[np.float32]], view: str
) -> list[float]:
    """Returns the cosines of one view of `first` with the sharp views of `second`."""
    if view not in first:
        return []
    return [float(first[view] @ second[other]) for other in _CLEAN if other in second]


def area_under_roc(same: list[float], different: list[float]) -> float:
    """Returns the chance that a same pair scores higher than a different one; 0.5 if a list is empty."""
    if not same or not different:
        return 0.5
    ordered = np.sort(np.asarray(different))
    below = np.searchsorted(ordered, same, "left") + np.searchsorted(ordered, same, "right")
    return float(below.mean() / (2 * len(ordered)))
