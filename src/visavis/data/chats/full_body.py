"""Full-body targets: a personaliser paints each person from head to toe, and ArcFace decides what is kept.

Source: the paper, Suppl. 8 and section 4.1: synthetic pictures, filtered by their ArcFace score with the person.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from visavis.data.chat_config import FullBodyConfig
from visavis.data.chats.material import person_words, placed
from visavis.data.config import PeopleConfig
from visavis.data.crops import Picture, Square, cut, read_png, resized, write_png
from visavis.data.curation.people import FaceFinder, Progress, find_faces
from visavis.data.describing.naming import clip_rng
from visavis.data.journal import Journal
from visavis.data.ledger import Ledger
from visavis.errors import VisavisError
from visavis.files import read_jsonl, sha256_file, write_json, write_jsonl

STEP = "full_body"
ROWS_NAME = "full_body.jsonl"
_SEEDS = 2**31


class Personaliser(Protocol):
    """A model that paints a new picture of a person it is shown."""

    @property
    def fingerprint(self) -> str:
        """What its pictures depend on beside the arguments; pictures of two of them are not mixed."""
        ...

    def paint(self, face: Picture, prompt: str, seed: int) -> Picture:
        """Paints the person of a cutout (uint8 RGB [h, w, 3]) as the prompt says: uint8 RGB [H, W, 3]."""
        ...


def full_body(
    curated: Path,
    described: Path,
    segmented: Path,
    out: Path,
    config: FullBodyConfig,
    personaliser: Personaliser,
    faces: FaceFinder,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Makes a full-body target for each person of each pair; a killed run goes on where it stopped.

    The head cut out of the last frame and words about looks and place go in. A target is kept if exactly one face
    is found in it, and if that is the person's. Writes `full_body/<clip>-<i>.png` (square, gray where the
    painting was not), `full_body.jsonl` (`item`, `clip_id`, `person`, `file`, `prompt`, `seed`, `similarity`),
    `summary.json` (`counts`, `painted`, `kept_share` of what was painted) and `ledger.jsonl`.

    Args:
        curated: Result of `curate`.
        described: Result of `describe`.
        segmented: Result of `segment`.
        out: Folder to write; may hold the beginning of the same work.
        config: Prompts and floor.
        personaliser: Paints.
        faces: Detector and recogniser, the one that `curate` used.
        progress: Called with the number of people done and in all.

    Returns:
        `{"in": n, "kept": k, "dropped": {reason: n}}` over the people; reasons `not_described`,
        `not_segmented`, `personaliser_failed`, `no_face`, `several_faces`, `below_floor`.

    Raises:
        VisavisError: If `out` holds other work.
    """
    pairs = read_jsonl(curated / "pairs.jsonl")
    captions = {row["clip_id"]: row for row in read_jsonl(described / "captions.jsonl")}
    cut_out = {row["item"]: row for row in read_jsonl(segmented / "faces.jsonl")}
    people = [(f"{pair['clip_id']}-{i}", pair, i) for pair in pairs for i in (0, 1)]
    files = (curated / "pairs.jsonl", described / "captions.jsonl", segmented / "faces.jsonl")
    fingerprint = {
        "config": config.model_dump(mode="json", exclude={"enabled", "model"}),
        "personaliser": personaliser.fingerprint,
        "inputs": [sha256_file(file) for file in files],
    }
    with Journal(out / "journal.jsonl", fingerprint) as journal:
        for done, (item, pair, person) in enumerate(people, 1):
            if item not in journal:
                caption, face = captions.get(pair["clip_id"]), cut_out.get(item)
                if caption is None or face is None:
                    value = _outcome("not_described" if caption is None else "not_segmented")
                else:
                    masked = read_png(segmented / face["last"]["cutout"])
                    value = _made(out, pair, person, caption, masked, config, personaliser, faces)
                journal.append(item, value)
            if progress:
                progress(done, len(people))
        return _close(out, [item for item, _, _ in people], journal)


def _made(
    out: Path,
    pair: Mapping[str, Any],
    person: int,
    caption: Mapping[str, Any],
    face: Picture,
    config: FullBodyConfig,
    personaliser: Personaliser,
    faces: FaceFinder,
) -> dict[str, Any]:
    """Returns the journal value of one person, after the target is written if it is kept."""
    clip = str(pair["clip_id"])
    rng = clip_rng(clip, f"full_body-{person}", config.seed)
    words = placed(person_words(caption["phrases"][person], config.max_looks, rng), caption["place"])
    prompt = config.prompts[int(rng.integers(len(config.prompts)))].replace("{person}", words)
    seed = int(rng.integers(_SEEDS))
    detail: dict[str, Any] = {"prompt": prompt, "seed": seed}
    try:
        picture = _squared(personaliser.paint(face, prompt, seed))
    except VisavisError:
        raise
    except Exception as error:
        return _outcome("personaliser_failed", message=repr(error)[:200], **detail)
    # Larger, so that the face is not aligned from few pixels.
    found = find_faces(
        resized(picture, max(len(picture), config.look_px)),
        faces,
        PeopleConfig(min_face_score=config.min_face_score, min_face=config.min_face),
    )
    if len(found) != 1:
        return _outcome("several_faces" if found else "no_face", faces=len(found), **detail)
    similarity = float(np.dot(found[0].embedding, np.asarray(pair["people"][person]["embedding"])))
    detail["similarity"] = round(similarity, 4)
    if similarity < config.floor:
        return _outcome("below_floor", **detail)
    item = f"{clip}-{person}"
    row = {"item": item, "clip_id": clip, "person": person, "file": f"full_body/{item}.png", **detail}
    write_png(out / row["file"], picture)
    return {**_outcome(None, **detail), "row": row}


def _outcome(reason: str | None, **detail: Any) -> dict[str, Any]:
    return {"reason": reason, "detail": detail}


def _squared(picture: Picture) -> Picture:
    """Returns the whole picture in a gray square, as all pictures of a data set are square.

    Raises:
        ValueError: If it is not uint8 RGB [H, W, 3].
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(
            f"the personaliser painted {picture.dtype} {list(picture.shape)}, not uint8 [H, W, 3]"
        )
    height, width = picture.shape[:2]
    side = max(height, width)
    return cut(picture, Square((width - side) // 2, (height - side) // 2, side))


def _close(out: Path, items: list[str], journal: Journal) -> dict[str, Any]:
    ledger = Ledger(STEP)
    kept, painted = [], 0
    for item in items:
        value = journal.rows[item]
        painted += "seed" in value["detail"] and value["reason"] != "personaliser_failed"
        if value["reason"] is None:
            kept.append(value["row"])
            ledger.keep(item, **value["detail"])
        else:
            ledger.drop(item, value["reason"], **value["detail"])
    write_jsonl(out / ROWS_NAME, kept)
    counts = ledger.close(out / "ledger.jsonl", len(items))
    share = round(len(kept) / painted, 4) if painted else None
    write_json(out / "summary.json", {"counts": counts, "painted": painted, "kept_share": share})
    return counts
