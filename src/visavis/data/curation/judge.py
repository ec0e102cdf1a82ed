"""Judging clips one by one: what each file shows, whatever the other files are.

Nothing here depends on another clip but for one short cut: bytes that were judged before are not judged again.
So any number of workers may share the clips out among them; what needs all of them (duplicates, numbers, quotas)
is decided by `merge`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visavis.data.config import FRAMES, CurateConfig
from visavis.data.crops import Picture, cut, write_png
from visavis.data.curation.people import FaceFinder, NearDuplicates, NoPair, Pair, find_pair, unopened_id
from visavis.data.intake.sources import ReadJob, Source, refusal
from visavis.data.video.decode import Clip, DecodeJob, Rejected
from visavis.data.video.guard import Outcome, guarded_map
from visavis.files import sha256_bytes

DOWNLOADS = "_downloads"
"""Folder for what is brought from a bucket; the caller removes it."""

_THUMBNAIL_HEIGHT = 96
_FAILURES = {"timeout": "decoder_timeout", "crashed": "decoder_crashed", "memory": "decoder_memory"}


class Judge:
    """Judges clips and writes the frames of those that show a pair.

    Args:
        out: Folder for `frames/` and `dropped/`.
        config: Limits.
        faces: Detector and recogniser.
        known: Journal values of the clips that were judged before, in their order.
    """

    def __init__(
        self, out: Path, config: CurateConfig, faces: FaceFinder, known: Iterator[dict[str, Any]]
    ) -> None:
        self.out, self.config, self.faces = out, config, faces
        self._reasons: dict[str, str | None] = {}
        self.quota = ThumbnailQuota(config.dropped_thumbnails)
        for value in known:
            self._remember(value)

    def clips(self, sources: Sequence[Source]) -> Iterator[dict[str, Any]]:
        """Yields the journal value of each clip, in order.

        A value has `name` (the item's id, or a stand-in if its bytes could not be read), `status` (`kept`, `dropped`,
        `forgotten`, or `same`: its bytes were judged before), `reason`, `decoded`, `detail`, and for two people
        `pair` and `tiny` (a thumbnail of 12 × 12 px, base64).
        """
        waiting = [item for item in sources if not refusal(item, self.config)]
        download_s = self.config.buckets.download_timeout_s if any(item.remote for item in waiting) else 0.0
        outcomes = guarded_map(
            "visavis.data.intake.sources:read_source",
            (self._job(item) for item in waiting),
            self.config.workers,
            self.config.timeout_s + download_s,
            self.config.memory_mb,
        )
        for item in sources:
            reason = refusal(item, self.config)
            value = self._value(item, None, reason) if reason else self._judged(item, next(outcomes))
            self._remember(value)
            yield value

    def _job(self, item: Source) -> ReadJob:
        limits = self.config
        start, end = item.span or (0.0, None)
        decode = DecodeJob(
            "", limits.min_seconds, limits.max_pixels, limits.cut_samples, limits.cut_threshold, start, end
        )
        return ReadJob(item, self.out / DOWNLOADS, limits.buckets, decode)

    def _judged(self, item: Source, outcome: Outcome) -> dict[str, Any]:
        if outcome.failure:
            reason = _FAILURES.get(outcome.failure, "decoder_error")
            return self._value(item, None, reason, {"message": outcome.message})
        clip: Clip | Rejected = outcome.value
        digest = clip.sha256 and item_id(clip.sha256, item.span)
        if isinstance(clip, Rejected):
            return self._dropped(item, digest, clip.reason, clip.detail, clip.frames)
        assert digest is not None
        if digest in self._reasons:
            value = self._value(item, digest, None)
            return {**value, "status": "same", "decoded": True}
        return {**self._paired(item, digest, clip), "decoded": True}

    def _paired(self, item: Source, digest: str, clip: Clip) -> dict[str, Any]:
        frames = (clip.first, clip.last)
        try:
            found = find_pair(clip.first, clip.last, self.faces, self.config)
        except Exception as error:
            # Detectors fail on odd sizes and memory; that is the clip's end, not the run's.
            return self._dropped(item, digest, "detector_error", {"message": repr(error)[:200]}, frames)
        if isinstance(found, NoPair):
            return self._dropped(item, digest, found.reason, found.detail, frames)
        return self._kept(item, digest, clip, found)

    def _kept(self, item: Source, digest: str, clip: Clip, pair: Pair) -> dict[str, Any]:
        squares = (pair.first_square, pair.last_square)
        pictures = [
            cut(frame, square) for frame, square in zip((clip.first, clip.last), squares, strict=True)
        ]
        names = {name: f"frames/{digest}-{name}.png" for name in FRAMES}
        # Whoever was forgotten leaves no picture, only what a near-duplicate is known by.
        forgotten = not {clip.sha256, digest}.isdisjoint(self.config.forgotten)
        for name, picture in zip(FRAMES, pictures, strict=True):
            if not forgotten:
                write_png(self.out / names[name], picture)
        row = {
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
            "people": pair.people(),
        }
        tiny = base64.b64encode(NearDuplicates.thumbnail(pictures[0]).tobytes()).decode()
        value = self._value(item, digest, None, pair.detail)
        return {**value, "status": "forgotten" if forgotten else "kept", "pair": row, "tiny": tiny}

    def _dropped(
        self, item: Source, digest: str | None, reason: str, detail: dict[str, Any], frames: Sequence[Picture]
    ) -> dict[str, Any]:
        if frames and self.quota.has_room(reason):
            detail = {**detail, "thumbnail": f"dropped/{digest}.jpg"}
            write_thumbnail(self.out / detail["thumbnail"], frames)
        return self._value(item, digest, reason, detail)

    def _value(
        self, item: Source, digest: str | None, reason: str | None, detail: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        name = digest or unopened_id(item.ref)
        return {
            "name": name,
            "status": "dropped",
            "reason": reason,
            "decoded": False,
            "detail": {"source_uri": item.uri, **(detail or {})},
        }

    def _remember(self, value: dict[str, Any]) -> None:
        if value["decoded"]:
            self._reasons.setdefault(value["name"], value["reason"])
        self.quota.count(self._reasons.get(value["name"], value["reason"]))


def item_id(sha256: str, span: tuple[float, float] | None) -> str:
    """Returns the id of an item: the hash of its bytes, or for a part of a file one made of hash and seconds."""
    return sha256 if span is None else sha256_bytes(f"{sha256}#t={span[0]:.3f},{span[1]:.3f}".encode())


class ThumbnailQuota:
    """Which dropped clips get a thumbnail: the first few of each reason, those with the same bytes counted in.

    So the first few of all clips are among the first few of each part of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[str, int] = {}

    def has_room(self, reason: str) -> bool:
        """Tells whether the next clip with this reason is among the first few."""
        return self._seen.get(reason, 0) < self._most

    def count(self, reason: str | None) -> None:
        """Takes note of one more clip with this reason."""
        if reason is not None:
            self._seen[reason] = self._seen.get(reason, 0) + 1


def write_thumbnail(path: Path, frames: Sequence[Picture]) -> None:
    """Writes frames side by side as a JPEG, 96 px high."""
    small = []
    for frame in frames:
        height, width = frame.shape[:2]
        width = max(1, min(round(width * _THUMBNAIL_HEIGHT / height), 4 * _THUMBNAIL_HEIGHT))
        picture = Image.fromarray(frame).resize((width, _THUMBNAIL_HEIGHT), Image.Resampling.BICUBIC)
        small.append(np.asarray(picture))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(small, 1)).save(path, "JPEG", quality=85)
