"""Curation: clips in, pairs of frames with the same two people out, and a reason for every other file.

The work has two halves. `curate_part` judges a part of the clips, in any process, on any machine. `merge` puts the
parts together in the order of the source and decides what needs all of them: same bytes, near-duplicates, numbers.
So the result depends neither on how many parts there were nor on who was ready first.
"""

from __future__ import annotations

import base64
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from visavis.data.config import FRAMES, OPERATING, CurateConfig
from visavis.data.crops import read_png
from visavis.data.curation.judge import DOWNLOADS, Judge, ThumbnailQuota, write_thumbnail
from visavis.data.curation.people import FaceFinder, NearDuplicates, Progress, unopened_id
from visavis.data.curation.pictures import curate_picture
from visavis.data.intake.listing import Listing, list_items
from visavis.data.intake.scenes import split_sources
from visavis.data.intake.sources import Source
from visavis.data.journal import Journal, JournalRows
from visavis.data.ledger import Ledger
from visavis.files import link_or_copy, sha256_bytes, write_json, write_jsonl

STEP = "curate_clips"
JOURNAL, ITEMS = "journal.jsonl", "items.jsonl"


def curate(
    source: str | Path, out: Path, config: CurateConfig, faces: FaceFinder, progress: Progress | None = None
) -> dict[str, Any]:
    """Curates a source of clips; a killed run goes on where it stopped and ends with the same bytes.

    Writes `frames/<clip>-{first,last}.png`, `pairs.jsonl`, `pictures/`, `pictures.jsonl`, `ledger.jsonl` (one
    row per clip), `pictures_ledger.jsonl`, `summary.json` and `dropped/` (thumbnails). All coordinates in
    `pairs.jsonl` are px of the frame crops.

    Args:
        source: Folder, manifest or `s3://` prefix; see `list_clips`. Natural pictures lie in `pictures/`.
        out: Folder to write; may hold the beginning of the same work.
        config: Limits.
        faces: Face detector and recogniser.
        progress: Called with the number of items done and in all.

    Returns:
        `{"in": n, "kept": k, "dropped": {reason: n}}` over the clips.

    Raises:
        VisavisError: If the source cannot be listed, or `out` holds other work.
    """
    curate_part(list_items(source, config.buckets), out, config, faces, progress)
    return merge([out], out, config)


def curate_part(
    part: Listing, out: Path, config: CurateConfig, faces: FaceFinder, progress: Progress | None = None
) -> None:
    """Judges each item of a part by itself.

    Writes `items.jsonl` (what there was to judge, long videos by their scenes), `journal.jsonl` (what became of each),
    `frames/`, `pictures/` and `dropped/`.

    Args:
        part: Items to judge.
        out: Folder to write; may hold the beginning of the same work.
        config: Limits.
        faces: Face detector and recogniser.
        progress: Called with the number of items done and in all.

    Raises:
        VisavisError: If `out` holds other work.
    """
    refs = "\n".join(item.ref for item in (*part.clips, *part.pictures))
    fingerprint = {
        "config": config.model_dump(mode="json", exclude=set(OPERATING)),
        "items": len(part),
        "names": sha256_bytes(refs.encode("utf-8", "surrogateescape")),
    }
    downloads = out / DOWNLOADS
    try:
        with Journal(out / JOURNAL, fingerprint) as journal:
            part = _by_scene(part, out, config, progress)
            done = sum(item.ref in journal for item in part.clips)
            judge = Judge(out, config, faces, (journal.rows[item.ref] for item in part.clips[:done]))
            for item, value in zip(part.clips[done:], judge.clips(part.clips[done:]), strict=True):
                journal.append(item.ref, value)
                done += 1
                if progress:
                    progress(done, len(part))
            stored = {journal.rows[item.ref]["item_id"] for item in part.pictures if item.ref in journal}
            for picture in part.pictures:
                if picture.ref not in journal:
                    value = curate_picture(picture, out, config, faces, stored, downloads)
                    journal.append(picture.ref, value)
                    stored.add(value["item_id"])
                done += 1
                if progress:
                    progress(done, len(part))
    finally:
        shutil.rmtree(downloads, ignore_errors=True)


def _by_scene(part: Listing, out: Path, config: CurateConfig, progress: Progress | None) -> Listing:
    """Returns the part with long videos divided into scenes, from `items.jsonl` if that was done before."""
    path = out / ITEMS
    if config.split_over_seconds is not None and path.is_file():
        return Listing.load(path)
    divided = Listing(split_sources(part.clips, out / DOWNLOADS, config, progress), part.pictures)
    divided.save(path)
    return divided


def merge(parts: Sequence[Path], out: Path, config: CurateConfig) -> dict[str, Any]:
    """Puts judged parts together as one result; see `curate` for what it writes and returns.

    Args:
        parts: The folders that `curate_part` wrote, in the order of the source.
        out: Folder to write; may be that of the only part.
        config: Limits.
    """
    clips, pictures = Ledger(STEP), Ledger(f"{STEP}/pictures")
    listed = [(Listing.load(folder / ITEMS), folder) for folder in parts]
    write_jsonl(out / "pairs.jsonl", _Merger(out, config, clips).pairs(_values(listed, "clips")))
    write_jsonl(out / "pictures.jsonl", _merged_pictures(_values(listed, "pictures"), out, pictures))
    counts = {
        "clips": clips.close(out / "ledger.jsonl", sum(len(part.clips) for part, _ in listed)),
        "pictures": pictures.close(
            out / "pictures_ledger.jsonl", sum(len(part.pictures) for part, _ in listed)
        ),
    }
    write_json(out / "summary.json", counts)
    return counts["clips"]


def _values(
    listed: Iterable[tuple[Listing, Path]], kind: Literal["clips", "pictures"]
) -> Iterator[tuple[Path, Source, dict[str, Any]]]:
    """Yields folder, item and journal value of all items, with one journal open at a time."""
    for part, folder in listed:
        with JournalRows(folder / JOURNAL) as rows:
            for item in getattr(part, kind):
                yield folder, item, rows[item.ref]


class _Merger:
    """Decides what depends on all clips, in the order of the source."""

    def __init__(self, out: Path, config: CurateConfig, ledger: Ledger) -> None:
        self.out, self.ledger = out, ledger
        self._uses: Counter[str] = Counter()
        self._reasons: dict[str, str | None] = {}
        self._quota = ThumbnailQuota(config.dropped_thumbnails)
        self._near = NearDuplicates(config.duplicate_picture, config.duplicate_people)

    def pairs(self, values: Iterable[tuple[Path, Source, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        """Fills the ledger and yields the rows of `pairs.jsonl`.

        Args:
            values: Folder of its part, item and journal value of every clip.
        """
        for folder, _, value in values:
            name = value["name"]
            self._uses[name] += 1
            # The same bytes under another name are another item of the ledger, but never another sample.
            item_id = name if self._uses[name] == 1 else f"{name}#{self._uses[name]}"
            if value["decoded"] and name in self._reasons:
                self._quota.count(self._reasons[name])
                self._drop_twin(item_id, value, "duplicate", {"of": name}, self.out, name)
                continue
            if value["decoded"]:
                self._reasons[name] = value["reason"]
            if value["status"] == "dropped":
                self._drop(folder, item_id, value)
            elif value["status"] == "forgotten":
                self._near.add(item_id, *_likeness(value))
                self.ledger.drop(item_id, "forgotten", source_uri=value["detail"]["source_uri"])
            elif self._keep(folder, item_id, value):
                yield {"clip_id": item_id, **value["pair"]}

    def _drop(self, folder: Path, item_id: str, value: dict[str, Any]) -> None:
        detail = dict(value["detail"])
        if (thumbnail := detail.pop("thumbnail", None)) and self._quota.has_room(value["reason"]):
            link_or_copy(folder / thumbnail, self.out / thumbnail)
            detail["thumbnail"] = thumbnail
        self._quota.count(value["reason"])
        self.ledger.drop(item_id, value["reason"], **detail)

    def _keep(self, folder: Path, item_id: str, value: dict[str, Any]) -> bool:
        pair = value["pair"]
        tiny, embeddings = _likeness(value)
        files = [pair[name] for name in FRAMES]
        if twin := self._near.find(tiny, embeddings):
            detail = {"of": twin[0], "picture_sim": twin[1]}
            self._drop_twin(item_id, value, "near_duplicate", detail, folder, value["name"])
            if folder == self.out:
                for file in files:
                    (self.out / file).unlink(missing_ok=True)
            return False
        self._near.add(item_id, tiny, embeddings)
        for file in files:
            link_or_copy(folder / file, self.out / file)
        self.ledger.keep(item_id, **value["detail"])
        return True

    def _drop_twin(
        self,
        item_id: str,
        value: dict[str, Any],
        reason: str,
        detail: dict[str, Any],
        folder: Path,
        name: str,
    ) -> None:
        """Drops a clip for another one's sake; its thumbnail is made of stored frames."""
        detail = {"source_uri": value["detail"]["source_uri"], **detail}
        thumbnail = f"dropped/{item_id.replace('#', '-')}.jpg"
        frames = [folder / f"frames/{name}-{frame}.png" for frame in FRAMES]
        if self._quota.has_room(reason):
            if all(frame.is_file() for frame in frames):
                write_thumbnail(self.out / thumbnail, [read_png(frame) for frame in frames])
            if (self.out / thumbnail).is_file():  # a merge that is done again finds the frames removed
                detail["thumbnail"] = thumbnail
        self._quota.count(reason)
        self.ledger.drop(item_id, reason, **detail)


def _likeness(value: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Returns what near-duplicates are known by: a tiny picture [12, 12, 3] and both embeddings [2, d]."""
    tiny = np.frombuffer(base64.b64decode(value["tiny"]), np.uint8)
    people = value["pair"]["people"]
    return (
        tiny.reshape(NearDuplicates.side, NearDuplicates.side, 3),
        np.array([person["embedding"] for person in people], np.float64),
    )


def _merged_pictures(
    values: Iterable[tuple[Path, Source, dict[str, Any]]], out: Path, ledger: Ledger
) -> Iterator[dict[str, Any]]:
    """Fills the ledger and yields the rows of `pictures.jsonl`; equal files are one picture."""
    kept: set[str] = set()
    for folder, item, value in values:
        if value["status"] == "dropped":
            ledger.drop(value["item_id"], value["reason"], **value["detail"])
        elif value["item_id"] in kept:
            ledger.drop(unopened_id(item.ref), "duplicate", **value["detail"], of=value["item_id"])
        else:
            kept.add(value["item_id"])
            row = value["picture"]
            link_or_copy(folder / row["file"], out / row["file"])
            ledger.keep(value["item_id"], **value["detail"])
            yield row
