"""Natural pictures: any photos or drawings beside the clips, from which the detokenizer learns first."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from visavis.data.config import CurateConfig
from visavis.data.crops import Picture, write_png
from visavis.data.curation.people import FaceFinder, find_faces, unopened_id
from visavis.data.intake.buckets import DownloadError
from visavis.data.intake.sources import Source
from visavis.files import sha256_bytes

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_DIGITS = 5


def curate_picture(
    source: Source,
    out: Path,
    config: CurateConfig,
    faces: FaceFinder,
    stored: set[str],
    downloads: Path,
) -> dict[str, Any]:
    """Stores the middle square of one picture as `pictures/<id>.png`.

    People in it are embedded as well, so that somebody from a test clip cannot slip into training by a photo.

    Args:
        source: The file.
        out: Folder of the step.
        config: Limits.
        faces: Detector and recogniser.
        stored: Ids of the pictures so far.
        downloads: Folder for what is brought from a bucket; the caller removes it.

    Returns:
        The journal value: `item_id`, `status`, `reason`, `detail` and, if kept, the row `picture`.
    """
    detail: dict[str, Any] = {"source_uri": source.uri}

    def dropped(item_id: str, reason: str) -> dict[str, Any]:
        # Picture files are counted by name: equal files are equal pictures, and one of them is enough.
        return {"item_id": item_id, "status": "dropped", "reason": reason, "detail": detail}

    by_name = unopened_id(source.ref)
    try:
        with source.opened(downloads, config.buckets) as path:
            if not path.is_file():
                return dropped(by_name, "unreadable")
            if path.stat().st_size > config.pictures.max_bytes:
                return dropped(by_name, "too_large")
            data = path.read_bytes()
    except DownloadError as error:
        detail.update(error.detail)
        return dropped(by_name, error.reason)
    except (OSError, ValueError):
        return dropped(by_name, "unreadable")
    item_id = sha256_bytes(data)
    if not {item_id, source.ref, source.uri}.isdisjoint(config.forgotten):
        return dropped(by_name, "forgotten")
    name = f"pictures/{item_id}.png"
    if item_id in stored:
        detail["of"] = item_id
        return dropped(by_name, "duplicate")
    try:
        image = _load(data, config.max_pixels)
    except UnidentifiedImageError:
        return dropped(by_name, "not_a_picture")
    except Exception:  # every format has its own ways to be broken
        return dropped(by_name, "damaged")
    if image is None:
        return dropped(by_name, "too_large")
    if min(image.size) < config.pictures.min_px:
        return dropped(by_name, "too_small")
    square = _square(image, config.pictures.max_px)
    try:
        found = find_faces(square, faces, config)
    except Exception as error:
        detail["message"] = repr(error)[:200]
        return dropped(by_name, "detector_error")
    row = {
        "picture_id": item_id,
        "file": name,
        "source_uri": source.uri,
        "licence": source.licence,
        "people": [
            {"box": np.round(face.box, 2).tolist(), "embedding": np.round(face.embedding, _DIGITS).tolist()}
            for face in found
        ],
    }
    write_png(out / name, square)
    return {"item_id": item_id, "status": "kept", "reason": None, "detail": detail, "picture": row}


def _load(data: bytes, max_pixels: int) -> Image.Image | None:
    """Returns the upright picture; None if it has too many pixels."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.size[0] * image.size[1] > max_pixels:
            return None
        upright = ImageOps.exif_transpose(image)
        if "A" in upright.getbands() or "transparency" in upright.info:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            return Image.alpha_composite(white, upright).convert("RGB")
        return upright.convert("RGB")


def _square(image: Image.Image, longest: int) -> Picture:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side > longest:
        image = image.resize((longest, longest), Image.Resampling.BICUBIC)
    return np.asarray(image)
