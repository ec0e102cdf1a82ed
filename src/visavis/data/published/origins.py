"""Origins: where each clip and picture of a data set came from, who is in it, and where their faces are.

The shards hold what a model learns from; `origins.jsonl` holds what people must know to answer for it: the source,
the licence, the consent, the recording. With it a person can be taken out, and leaks can be looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visavis.data.config import FRAMES
from visavis.data.identities import Identities
from visavis.files import read_jsonl, sha256_file, write_jsonl

ORIGINS_NAME = "origins.jsonl"
# Px by which an outline may miss the mask: it is drawn over a small picture.
_OUTLINE_PX = 0.75


def write_origins(curated: Path, segmented: Path, who: Identities, out: Path) -> list[dict[str, Any]]:
    """Writes one row for each clip and picture, those without a split included.

    Args:
        curated: Result of `curate`.
        segmented: Result of `segment`.
        who: Who is where.
        out: Folder of the data set.

    Returns:
        The rows: item, kind (`clip` or `picture`), split, people, source_uri, licence, consent, recording; for
        clips also frames: by the sha256 of the PNG of the first and of the last frame the boxes (of both faces in it,
        px) and outlines (of their masks: points x, y in px; None where no mask was kept).
    """
    faces = {row["item"]: row for row in read_jsonl(segmented / "faces.jsonl")}
    rows = [
        _origin("clip", pair["clip_id"], pair, who)
        | {
            "frames": {
                sha256_file(curated / pair[frame]): {
                    "boxes": [person[f"{frame}_box"] for person in pair["people"]],
                    "outlines": [_of_face(faces.get(f"{pair['clip_id']}-{i}"), frame) for i in (0, 1)],
                }
                for frame in FRAMES
            }
        }
        for pair in read_jsonl(curated / "pairs.jsonl")
    ]
    rows += [
        _origin("picture", picture["picture_id"], picture, who)
        for picture in read_jsonl(curated / "pictures.jsonl")
    ]
    write_jsonl(out / ORIGINS_NAME, rows)
    return rows


def read_origins(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a data set; none if it has no such file, as foreign ones."""
    path = folder / ORIGINS_NAME
    return read_jsonl(path) if path.is_file() else []


def _origin(kind: str, item: str, row: Mapping[str, Any], who: Identities) -> dict[str, Any]:
    known = {name: row.get(name) for name in ("source_uri", "licence", "consent", "recording")}
    return {"item": item, "kind": kind, "split": who.split[item], "people": who.people[item], **known}


def _of_face(face: Mapping[str, Any] | None, frame: str) -> list[list[int]] | None:
    mask = (face or {}).get(frame, {}).get("mask")
    return outline(mask_of(mask["size"], mask["counts"])) if mask else None


def mask_of(size: Sequence[int], counts: Sequence[int]) -> NDArray[np.bool_]:
    """Returns the bool [H, W] mask of run lengths in row order, the first of which is outside."""
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(size[0], size[1])


def outline(mask: NDArray[np.bool_]) -> list[list[int]]:
    """Returns the points x, y of the largest part's outline, px; empty if the mask is."""
    import cv2

    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return []
    largest = max(contours, key=cv2.contourArea)
    points: list[list[int]] = cv2.approxPolyDP(largest, _OUTLINE_PX, True)[:, 0].tolist()
    return points
