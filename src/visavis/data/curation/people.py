"""Who is in a clip: exactly two people in its first and last frame, matched by ArcFace, inside one box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from visavis.data.config import PeopleConfig
from visavis.data.crops import Picture, Square, two_person_box
from visavis.data.curation.face_quality import face_figures, quality_fault
from visavis.files import sha256_bytes

Progress: TypeAlias = Callable[[int, int], None]
_COUNT_REASONS = {0: "no_person", 1: "one_person", 3: "three_people"}
_DIGITS = 5


class FaceFinder(Protocol):
    """insightface's `FaceAnalysis`, as far as it is used: BGR uint8 in, faces out."""

    def get(self, img: Picture) -> list[Any]:
        """Returns faces with `bbox`, `kps`, `det_score` and `normed_embedding`."""
        ...


@dataclass(frozen=True)
class FoundFace:
    """A detected face in px of its picture; `embedding` has length 1."""

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float64]
    score: float
    embedding: NDArray[np.float64]

    def inside(self, square: Square) -> FoundFace:
        """Returns the face in px of a square cut out of the picture."""
        shift = np.array([square.x, square.y], np.float64)
        x0, y0, x1, y1 = self.box
        box = (x0 - square.x, y0 - square.y, x1 - square.x, y1 - square.y)
        return FoundFace(box, self.landmarks - shift, self.score, self.embedding)


@dataclass(frozen=True)
class Pair:
    """Two people, from left to right in the first frame, with their boxes in px of the two squares."""

    first_square: Square
    last_square: Square
    first: tuple[FoundFace, FoundFace]
    last: tuple[FoundFace, FoundFace]
    similarity: tuple[float, float]
    detail: dict[str, Any]

    def people(self) -> list[dict[str, Any]]:
        """Returns the rows of the two people for `pairs.jsonl`."""
        return [
            {
                "first_box": _rounded(one.box, 2),
                "last_box": _rounded(two.box, 2),
                "first_kps": _rounded(one.landmarks, 2),
                "last_kps": _rounded(two.landmarks, 2),
                "first_score": round(one.score, 4),
                "last_score": round(two.score, 4),
                "embedding": _rounded(_unit(one.embedding + two.embedding), _DIGITS),
                "match_sim": round(similarity, 4),
            }
            for one, two, similarity in zip(self.first, self.last, self.similarity, strict=True)
        ]


@dataclass(frozen=True)
class NoPair:
    """Why there is no pair."""

    reason: str
    detail: dict[str, Any] = field(default_factory=dict)


def find_faces(image: Picture, faces: FaceFinder, config: PeopleConfig) -> list[FoundFace]:
    """Returns the faces of a picture (uint8 RGB [H, W, 3]) that count as people, from left to right."""
    found = []
    for face in faces.get(np.ascontiguousarray(image[..., ::-1])):
        x0, y0, x1, y1 = (float(value) for value in face.bbox)
        score = float(face.det_score)
        if score < config.min_face_score or y1 - y0 < config.min_face * image.shape[0]:
            continue
        embedding = np.asarray(face.normed_embedding, np.float64)
        if not np.isfinite(embedding).all():
            continue
        found.append(FoundFace((x0, y0, x1, y1), np.asarray(face.kps, np.float64), score, embedding))
    return sorted(found, key=lambda face: face.box[0] + face.box[2])


def find_pair(first: Picture, last: Picture, faces: FaceFinder, config: PeopleConfig) -> Pair | NoPair:
    """Looks for the same two people in both frames.

    Args:
        first: First frame, uint8 RGB [H, W, 3].
        last: Last frame of the same size.
        faces: Detector and recogniser.
        config: Limits.

    Returns:
        The pair, or the first reason against it in the order: number of people, size of the frame, distance,
        size of the faces, sharpness and pose of each face, identity.
    """
    one, two = find_faces(first, faces, config), find_faces(last, faces, config)
    counts = {"faces_first": len(one), "faces_last": len(two)}
    for found in (one, two):
        if len(found) != 2:
            return NoPair(_COUNT_REASONS.get(len(found), "people_count"), counts)
    height, width = first.shape[:2]
    side = config.box_px or min(width, height)
    if side > min(width, height):
        return NoPair("frame_too_small", {"width": width, "height": height, "box_px": side})
    squares = []
    for found in (one, two):
        square = two_person_box((width, height), [face.box for face in found], side, config.box_margin)
        if square is None:
            gap = found[1].box[0] - found[0].box[2]
            return NoPair("too_far_apart", {"gap_px": round(gap, 1), "box_px": side})
        squares.append(square)
    smallest = min(face.box[3] - face.box[1] for face in one + two) / side
    if smallest < config.min_person:
        return NoPair("face_too_small", {"face_share": round(smallest, 4)})
    figures = []
    for name, image, found in (("first", first, one), ("last", last, two)):
        for place, face in enumerate(found):
            figures.append(face_figures(image, face.landmarks, config))
            if reason := quality_fault(figures[-1], config):
                return NoPair(reason, {"frame": name, "from_left": place, **figures[-1]})
    # Of the left and the right face of the first, then of the last frame.
    quality = {name: [of_face[name] for of_face in figures] for name in figures[0]}
    return _matched(one, two, squares, config, quality)


def _matched(
    one: list[FoundFace],
    two: list[FoundFace],
    squares: list[Square],
    config: PeopleConfig,
    quality: dict[str, list[float | None]],
) -> Pair | NoPair:
    from scipy.optimize import linear_sum_assignment

    cosines = np.stack([face.embedding for face in one]) @ np.stack([face.embedding for face in two]).T
    rows, columns = linear_sum_assignment(-cosines)
    similarity = cosines[rows, columns]
    lead = float(similarity.mean() - cosines[rows, columns[::-1]].mean())
    detail = {"match_sim": _rounded(similarity, 4), "match_lead": round(lead, 4), **quality}
    if similarity.min() < config.match_threshold:
        return NoPair("identity_changed", detail)
    if lead < config.match_margin:
        return NoPair("people_alike", detail)
    left, right = (two[int(column)] for column in columns)
    first, last = squares
    return Pair(
        first,
        last,
        (one[0].inside(first), one[1].inside(first)),
        (left.inside(last), right.inside(last)),
        (float(similarity[0]), float(similarity[1])),
        detail,
    )


class NearDuplicates:
    """Finds pairs that were seen before: almost the same picture of the same people.

    Pictures are compared as small colour thumbnails of the two-person box, which is centred on the people and
    so hardly changes when a clip is re-encoded, cropped or shifted.
    """

    side = 12

    def __init__(self, picture_threshold: float, people_threshold: float) -> None:
        self.picture_threshold, self.people_threshold = picture_threshold, people_threshold
        self._names: list[str] = []
        self._pictures = np.zeros((0, 3 * self.side**2), np.float32)
        self._people: list[NDArray[np.float32]] = []

    @classmethod
    def thumbnail(cls, picture: Picture) -> NDArray[np.uint8]:
        """Returns the thumbnail of a picture, uint8 [side, side, 3]."""
        return np.asarray(cv2.resize(picture, (cls.side, cls.side), interpolation=cv2.INTER_AREA), np.uint8)

    def find(self, thumbnail: NDArray[np.uint8], people: NDArray[np.float64]) -> tuple[str, float] | None:
        """Returns name and picture similarity of the most similar earlier pair, if it is a near-duplicate."""
        count = len(self._names)
        cosines = self._pictures[:count] @ self._vector(thumbnail)
        alike = np.flatnonzero(cosines >= self.picture_threshold)
        for index in alike[np.argsort(-cosines[alike], kind="stable")]:
            if float((self._people[index] * people).sum(1).min()) >= self.people_threshold:
                return self._names[index], round(float(cosines[index]), 4)
        return None

    def add(self, name: str, thumbnail: NDArray[np.uint8], people: NDArray[np.float64]) -> None:
        """Remembers a pair; `people` are the embeddings [2, d] from left to right."""
        count = len(self._names)
        if count == len(self._pictures):
            grown = np.zeros((max(256, 2 * count), self._pictures.shape[1]), np.float32)
            grown[:count] = self._pictures
            self._pictures = grown
        self._pictures[count] = self._vector(thumbnail)
        self._names.append(name)
        self._people.append(people.astype(np.float32))

    def _vector(self, thumbnail: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = thumbnail.astype(np.float32).ravel()
        values -= values.mean()
        return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), np.float32)


def unopened_id(ref: str) -> str:
    """Returns the item id of a source whose bytes cannot be read: the hash of its name stands in."""
    return sha256_bytes(f"unopened:{ref}".encode("utf-8", "surrogateescape"))


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _rounded(values: Any, digits: int) -> Any:
    return np.round(np.asarray(values, np.float64), digits).tolist()
