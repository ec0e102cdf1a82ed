"""ArcFace embeddings of pictures, with the policies spelt out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visavis.errors import VisavisError
from visavis.evaluation.items import Picture

Embedding = NDArray[np.float32]
Found = TypeVar("Found")

_BORDER = 128  # the gray of the masked close-ups


class FaceFinder(Protocol):
    """What is used of `insightface.app.FaceAnalysis`, after its `prepare`."""

    def get(self, img: NDArray[np.uint8]) -> list[Any]:
        """Returns the faces of a BGR picture, each with `bbox`, `det_score` and `embedding`."""
        ...


def embed_faces(
    images: Sequence[Picture],
    faces: FaceFinder,
    *,
    paddings: Sequence[float] = (0.0, 0.35),
    several: Literal["largest", "most_certain"] = "largest",
) -> list[Embedding | None]:
    """Returns the unit-length ArcFace embedding of each picture, or None where no face is found.

    Pictures smaller than the detector's input are enlarged to it first (bicubic), so that the aligned 112 px
    crop is cut from smooth pixels. Equal pictures are looked at once.

    Args:
        images: uint8 RGB [H, W, 3], of any sizes.
        faces: The prepared face analysis.
        paddings: Gray borders tried in turn, as shares of the larger side, until a face is found.
        several: Which face speaks for a picture with several: the one with the largest box or the most
            certain.

    Raises:
        VisavisError: If a picture is not uint8 RGB.
    """
    return _of_each(images, lambda image: _embed(image, faces, paddings, several))


def embed_pairs(
    images: Sequence[Picture], faces: FaceFinder, *, paddings: Sequence[float] = (0.0, 0.35)
) -> list[tuple[Embedding, Embedding] | None]:
    """Returns the embeddings of the left and the right face of each picture, None where not exactly two are found.

    Args:
        images: uint8 RGB [H, W, 3], of any sizes.
        faces: The prepared face analysis.
        paddings: As in `embed_faces`.

    Raises:
        VisavisError: If a picture is not uint8 RGB.
    """

    def pair(image: Picture) -> tuple[Embedding, Embedding] | None:
        found = sorted(_found(image, faces, paddings), key=lambda face: face.bbox[0] + face.bbox[2])
        units = [unit for face in found if (unit := _unit(face)) is not None]
        return (units[0], units[1]) if len(units) == len(found) == 2 else None

    return _of_each(images, pair)


def similarity(first: Embedding | None, second: Embedding | None) -> float | None:
    """Returns the cosine of two embeddings, or None if one of the pictures shows no face."""
    if first is None or second is None:
        return None
    return float(np.dot(first, second))


def _of_each(images: Sequence[Picture], look: Callable[[Picture], Found]) -> list[Found]:
    """Looks at each picture, at equal ones once."""
    known: dict[tuple[tuple[int, ...], bytes], Found] = {}
    results = []
    for index, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise VisavisError(
                f"picture {index} is {image.dtype} {list(image.shape)}, not uint8 [H, W, 3]",
                fix="map [-1, 1] to 0..255, round, clip, convert to uint8 and put channels last",
            )
        key = (image.shape, image.tobytes())
        if key not in known:
            known[key] = look(image)
        results.append(known[key])
    return results


def _embed(image: Picture, faces: FaceFinder, paddings: Sequence[float], several: str) -> Embedding | None:
    found = _found(image, faces, paddings)
    if not found:
        return None
    if several == "largest":
        return _unit(max(found, key=lambda f: (f.bbox[2] - f.bbox[0]) * (f.bbox[3] - f.bbox[1])))
    return _unit(max(found, key=lambda f: f.det_score))


def _found(image: Picture, faces: FaceFinder, paddings: Sequence[float]) -> list[Any]:
    """Returns the faces that have an embedding, with the first border that shows any."""
    side = _detector_side(faces)
    for padding in paddings:
        found = [
            face
            for face in faces.get(_enlarged(image, padding, side))
            if getattr(face, "embedding", None) is not None
        ]
        if found:
            return found
    return []


def _unit(face: Any) -> Embedding | None:
    vector = np.asarray(face.embedding, dtype=np.float32)
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else None


def _enlarged(image: Picture, padding: float, side: int) -> NDArray[np.uint8]:
    """Returns the picture with its border, at least as large as the detector's input, in BGR."""
    border = round(padding * max(image.shape[:2]))
    padded = np.pad(image, ((border, border), (border, border), (0, 0)), constant_values=_BORDER)
    height, width = padded.shape[:2]
    scale = side / max(height, width)
    if scale > 1:
        size = (round(width * scale), round(height * scale))
        padded = np.asarray(Image.fromarray(padded).resize(size, Image.Resampling.BICUBIC))
    return np.ascontiguousarray(padded[:, :, ::-1])


def _detector_side(faces: FaceFinder) -> int:
    """Returns the larger side of the detector's input; insightface keeps one size or a list of sizes."""
    size = getattr(faces, "det_size", None)
    if size is None:
        raise VisavisError(
            "the face analysis has no det_size: it was not prepared",
            fix="call faces.prepare(ctx_id=-1, det_size=(W, H)), or load it with visavis.packs.load_faces",
        )
    return int(np.max(np.asarray(size)))
