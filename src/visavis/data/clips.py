"""Curation: clips in, pairs of frames with the same two people out, and a reason for every other file."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visavis.data.config import CurateConfig
from visavis.data.crops import Picture, cut, write_png
from visavis.data.decode import Clip, DecodeJob, Rejected
from visavis.data.guard import Outcome, guarded_map
from visavis.data.journal import Journal
from visavis.data.ledger import Ledger
from visavis.data.people import (
    FaceFinder,
    NearDuplicates,
    NoPair,
    Pair,
    Progress,
    find_pair,
    unopened_id,
)
from visavis.data.pictures import curate_picture
from visavis.data.sources import Source, list_clips, list_pictures
from visavis.files import write_atomic, write_json, write_jsonl

STEP = "curate_clips"
_THUMBNAIL_HEIGHT = 96


def curate(
    source: Path, out: Path, config: CurateConfig, faces: FaceFinder, progress: Progress | None = None
) -> dict[str, Any]:
    """Curates a folder of clips; a killed run goes on where it stopped and ends with the same bytes.

    Writes `frames/<clip>-{first,last}.png`, `pairs.jsonl`, `pictures/`, `pictures.jsonl`, `ledger.jsonl` (one
    row per clip), `pictures_ledger.jsonl`, `summary.json` and `dropped/` (thumbnails). All coordinates in
    `pairs.jsonl` are px of the frame crops.

    Args:
        source: Folder with `clips.jsonl` and its files, or just video files; natural pictures in `pictures/`.
        out: Folder to write; may hold the beginning of the same work.
        config: Limits.
        faces: Face detector and recogniser.
        progress: Called with the number of items done and in all.

    Returns:
        `{"in": n, "kept": k, "dropped": {reason: n}}` over the clips.

    Raises:
        VisavisError: If the source cannot be listed, or `out` holds other work.
    """
    clips, pictures = list_clips(source), list_pictures(source)
    total = len(clips) + len(pictures)
    fingerprint = {"config": config.model_dump(mode="json", exclude={"workers", "timeout_s"}), "items": total}
    with Journal(out / "journal.jsonl", fingerprint) as journal:
        run = _Run(out, config, faces, journal)
        done = 0
        for key, value in run.clips(clips):
            if value is not None:
                journal.append(key, value)
            done += 1
            if progress:
                progress(done, total)
        stored = {journal.rows[item.ref]["item_id"] for item in pictures if item.ref in journal}
        for picture in pictures:
            if picture.ref not in journal:
                value = curate_picture(
                    picture, out, config.pictures, config, config.max_pixels, faces, stored
                )
                journal.append(picture.ref, value)
                stored.add(value["item_id"])
            done += 1
            if progress:
                progress(done, total)
        return _close(out, clips, pictures, journal)


class _Run:
    """The state that grows from clip to clip; rebuilt from the journal when a run goes on."""

    def __init__(self, out: Path, config: CurateConfig, faces: FaceFinder, journal: Journal) -> None:
        self.out, self.config, self.faces, self.journal = out, config, faces, journal
        self.uses: Counter[str] = Counter()
        self.originals: set[str] = set()
        self.thumbnails: Counter[str] = Counter()
        self.near = NearDuplicates(config.duplicate_picture, config.duplicate_people)

    def clips(self, sources: list[Source]) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Yields each clip's journal value in order; None for those that are in the journal already."""
        waiting = [item for item in sources if item.ref not in self.journal and not self._refusal(item)]
        outcomes = guarded_map(
            "visavis.data.decode:read_clip",
            (self._job(item) for item in waiting),
            self.config.workers,
            self.config.timeout_s,
        )
        for item in sources:
            if item.ref in self.journal:
                self._remember(self.journal.rows[item.ref])
                yield item.ref, None
                continue
            refusal = self._refusal(item)
            value = self._refused(item, refusal) if refusal else self._judged(item, next(outcomes))
            self._remember(value)
            yield item.ref, value

    def _job(self, item: Source) -> DecodeJob:
        limits = self.config
        return DecodeJob(
            str(item.path), limits.min_seconds, limits.max_pixels, limits.cut_samples, limits.cut_threshold
        )

    def _refusal(self, item: Source) -> str | None:
        if item.problem:
            return item.problem
        if item.consent is False or (self.config.require_consent and item.consent is None):
            return "no_consent"
        if self.config.licences is not None and item.licence not in self.config.licences:
            return "licence_refused"
        return None

    def _refused(self, item: Source, reason: str) -> dict[str, Any]:
        return self._dropped(item, unopened_id(item.ref), reason, {})

    def _judged(self, item: Source, outcome: Outcome) -> dict[str, Any]:
        if outcome.failure:
            reason = {"timeout": "decoder_timeout", "crashed": "decoder_crashed"}.get(
                outcome.failure, "decoder_error"
            )
            return self._dropped(item, unopened_id(item.ref), reason, {"message": outcome.message})
        clip: Clip | Rejected = outcome.value
        digest = clip.sha256 or unopened_id(item.ref)
        self.uses[digest] += 1
        # The same bytes under another name are another item of the ledger, but never another sample.
        item_id = digest if self.uses[digest] == 1 else f"{digest}#{self.uses[digest]}"
        if isinstance(clip, Rejected):
            return self._dropped(item, item_id, clip.reason, clip.detail, clip.frames)
        value = self._paired(item, item_id, digest, clip)
        return {**value, "decoded": True}

    def _paired(self, item: Source, item_id: str, digest: str, clip: Clip) -> dict[str, Any]:
        frames = (clip.first, clip.last)
        if digest in self.originals:
            return self._dropped(item, item_id, "duplicate", {"of": digest}, frames)
        try:
            found = find_pair(clip.first, clip.last, self.faces, self.config)
        except Exception as error:
            # Detectors fail on odd sizes and memory; that is the clip's end, not the run's.
            return self._dropped(item, item_id, "detector_error", {"message": repr(error)[:200]}, frames)
        if isinstance(found, NoPair):
            return self._dropped(item, item_id, found.reason, found.detail, frames)
        return self._kept(item, item_id, clip, found)

    def _kept(self, item: Source, item_id: str, clip: Clip, pair: Pair) -> dict[str, Any]:
        first, last = cut(clip.first, pair.first_square), cut(clip.last, pair.last_square)
        people = pair.people()
        thumbnail = self.near.thumbnail(first)
        if twin := self.near.find(thumbnail, _embeddings(people)):
            detail = {"of": twin[0], "picture_sim": twin[1]}
            return self._dropped(item, item_id, "near_duplicate", detail, (clip.first, clip.last))
        names = {name: f"frames/{item_id}-{name}.png" for name in ("first", "last")}
        write_png(self.out / names["first"], first)
        write_png(self.out / names["last"], last)
        row = {
            "clip_id": item_id,
            "source_uri": item.uri,
            "licence": item.licence,
            "consent": item.consent,
            "recording": item.recording,
            **names,
            "box_px": pair.first_square.side,
            "first_square": [pair.first_square.x, pair.first_square.y],
            "last_square": [pair.last_square.x, pair.last_square.y],
            "seconds": clip.seconds,
            "fps": clip.fps,
            "people": people,
        }
        return {
            "item_id": item_id,
            "status": "kept",
            "reason": None,
            "detail": {"source_uri": item.uri, **pair.detail},
            "pair": row,
            "thumbnail": base64.b64encode(thumbnail.tobytes()).decode(),
        }

    def _dropped(
        self,
        item: Source,
        item_id: str,
        reason: str,
        detail: dict[str, Any],
        frames: tuple[Picture, ...] = (),
    ) -> dict[str, Any]:
        detail = {"source_uri": item.uri, **detail}
        if frames and self.thumbnails[reason] < self.config.dropped_thumbnails:
            detail["thumbnail"] = f"dropped/{item_id.replace('#', '-')}.jpg"
            _write_thumbnail(self.out / detail["thumbnail"], frames)
        return {"item_id": item_id, "status": "dropped", "reason": reason, "detail": detail}

    def _remember(self, value: dict[str, Any]) -> None:
        digest, _, number = value["item_id"].partition("#")
        self.uses[digest] = max(self.uses[digest], int(number or 1))
        if value["detail"].get("thumbnail"):
            self.thumbnails[value["reason"]] += 1
        if value["status"] == "kept":
            raw = np.frombuffer(base64.b64decode(value["thumbnail"]), np.uint8)
            shape = (NearDuplicates.side, NearDuplicates.side, 3)
            self.near.add(value["item_id"], raw.reshape(shape), _embeddings(value["pair"]["people"]))
        if value.get("decoded"):
            self.originals.add(digest)


def _embeddings(people: list[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([person["embedding"] for person in people], np.float64)


def _write_thumbnail(path: Path, frames: tuple[Picture, ...]) -> None:
    """Writes the frames side by side, small."""
    small = []
    for frame in frames:
        height, width = frame.shape[:2]
        width = max(1, min(round(width * _THUMBNAIL_HEIGHT / height), 4 * _THUMBNAIL_HEIGHT))
        picture = Image.fromarray(frame).resize((width, _THUMBNAIL_HEIGHT), Image.Resampling.BICUBIC)
        small.append(np.asarray(picture))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(small, 1)).save(path, "JPEG", quality=85)


def _close(out: Path, clips: list[Source], pictures: list[Source], journal: Journal) -> dict[str, Any]:
    """Writes what the journal holds as the results of the step, in the order of the source."""
    counts = _write_ledger(out / "ledger.jsonl", STEP, clips, journal)
    rows = [journal.rows[item.ref] for item in clips]
    write_jsonl(out / "pairs.jsonl", [row["pair"] for row in rows if row["status"] == "kept"])
    of_pictures = _write_ledger(out / "pictures_ledger.jsonl", f"{STEP}/pictures", pictures, journal)
    rows = [journal.rows[item.ref] for item in pictures]
    write_jsonl(out / "pictures.jsonl", [row["picture"] for row in rows if row["status"] == "kept"])
    write_json(out / "summary.json", {"clips": counts, "pictures": of_pictures})
    return counts


def _write_ledger(path: Path, step: str, items: list[Source], journal: Journal) -> dict[str, Any]:
    ledger = Ledger(step)
    for item in items:
        value = journal.rows[item.ref]
        if value["status"] == "kept":
            ledger.keep(value["item_id"], **value["detail"])
        else:
            ledger.drop(value["item_id"], value["reason"], **value["detail"])
    if not items:
        write_atomic(path, "")
        return ledger.counts()
    return ledger.close(path, len(items))
