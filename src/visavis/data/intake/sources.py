"""What lies in a source: clips, from a public manifest or just by their names, and pictures.

A source is a folder, a manifest file, or either of them in a bucket (`s3://bucket/prefix`).
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from visavis.data.config import BucketConfig, CurateConfig
from visavis.data.intake.buckets import DownloadError, download, list_objects
from visavis.data.intake.manifests import MANIFEST_SUFFIXES, Entry, read_manifest
from visavis.errors import VisavisError
from visavis.files import sha256_bytes
from visavis.s3 import is_remote, split_uri

if TYPE_CHECKING:
    from visavis.data.video.decode import Clip, DecodeJob, Rejected

MANIFEST_NAMES = tuple(f"clips{suffix}" for suffix in MANIFEST_SUFFIXES)
PICTURES_FOLDER = "pictures"
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".ogv", ".3gp"}
)
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


@dataclass(frozen=True)
class Source:
    """One item of a source.

    Attributes:
        ref: Its name inside the source; unique.
        path: Where it lies; None if it lies in a bucket or must not be opened (`problem` says why).
        uri: Where it came from, for the ledger and for people.
        licence: As the manifest states it.
        recording: What the clip was cut from, as the manifest names it; clips of one recording share a split.
        consent: False if the people in it refused or withdrew; None if nothing is known.
        problem: Reason to drop it unopened.
        remote: `s3://` address of the object, if it lies in a bucket.
        etag: Tag of the object's bytes when it was listed; None if it was not.
        span: Seconds from the first frame at which the clip begins and ends; None if it is the whole file.
    """

    ref: str
    path: Path | None
    uri: str
    licence: str | None = None
    consent: bool | None = None
    recording: str | None = None
    problem: str | None = None
    remote: str | None = None
    etag: str | None = None
    span: tuple[float, float] | None = None

    @contextmanager
    def opened(self, folder: Path, limits: BucketConfig) -> Iterator[Path]:
        """Yields the file to read; an object of a bucket is downloaded for it and removed afterwards.

        Spans of one object follow each other, so the object stays until this thread opens another one: each thread
        has at most one in `folder`, which the caller removes in the end (a process may have been killed).

        Args:
            folder: For what is downloaded; threads and processes may share it.
            limits: How patient to be with the store.

        Raises:
            DownloadError: If the object cannot be brought here; its `reason` is one for the ledger.
            ValueError: If the item has a `problem`.
        """
        if self.remote is None:
            if self.path is None:
                raise ValueError(f"{self.ref} must not be opened: {self.problem}")
            yield self.path
            return
        own = folder / f"{os.getpid()}-{threading.get_ident()}"
        local = own / sha256_bytes(f"{self.remote}\n{self.etag}".encode("utf-8", "surrogatepass"))[:32]
        if not local.is_file():
            for other in own.glob("*"):
                other.unlink()
            download(self.remote, local, limits, self.etag)
        try:
            yield local
        finally:
            if self.span is None:
                local.unlink()


@dataclass(frozen=True)
class ReadJob:
    """One item to read in a guarded worker.

    Attributes:
        item: The item.
        folder: For what is downloaded.
        limits: How patient to be with the store.
        decode: What to read of the file; its `path` is filled in.
    """

    item: Source
    folder: Path
    limits: BucketConfig
    decode: DecodeJob


def read_source(job: ReadJob) -> Clip | Rejected:
    """Brings the item here if need be, which may take `download_timeout_s`, and reads it; see `read_clip`.

    Returns:
        The clip, or a rejection with a reason of `read_clip` or of `DownloadError`.
    """
    from visavis.data.video.decode import Rejected, read_clip

    try:
        with job.item.opened(job.folder, job.limits) as path:
            return read_clip(replace(job.decode, path=str(path)))
    except DownloadError as error:
        return Rejected(error.reason, None, error.detail)


def refusal(item: Source, config: CurateConfig) -> str | None:
    """Returns the reason why an item must not be opened, or None if it may be."""
    if item.problem:
        return item.problem
    if item.consent is False or (config.require_consent and item.consent is None):
        return "no_consent"
    if not {item.ref, item.uri, item.recording}.isdisjoint(config.forgotten):
        return "forgotten"
    if config.licences is not None and item.licence not in config.licences:
        return "licence_refused"
    return None


def list_clips(source: str | Path, limits: BucketConfig | None = None) -> list[Source]:
    """Returns the clips of a source in a stable order.

    With a manifest (the source itself, or `clips.jsonl`, `clips.csv` or `clips.parquet` in it; see `read_manifest`)
    exactly its entries; without, every file with a video's suffix below the folder or prefix. Links to folders are
    not followed, so loops cannot trap the walk.

    Args:
        source: Folder, manifest, or `s3://` address of either.
        limits: How patient to be with the store of an `s3://` address.

    Raises:
        VisavisError: If the source is missing or refused, or its manifest is not right.
    """
    place = _place(source, "", limits)
    entries = place.manifest()
    if entries is None:
        return [place.found(ref) for ref in place.names(VIDEO_SUFFIXES, skip=PICTURES_FOLDER)]
    return [_of_entry(place, entry) for entry in entries]


def list_pictures(source: str | Path, limits: BucketConfig | None = None) -> list[Source]:
    """Returns the natural pictures below `pictures/`, in a stable order; an absent folder means none.

    Args:
        source: As for `list_clips`; beside a manifest lies its `pictures/`.
        limits: As for `list_clips`.

    Raises:
        VisavisError: If the bucket is missing or refused.
    """
    place = _place(source, f"{PICTURES_FOLDER}/", limits)
    return [place.found(ref) for ref in place.names(PICTURE_SUFFIXES, skip=None)]


class _Place(Protocol):
    """A folder or prefix, looked at below `under`; names in it are relative, with `/` between their parts."""

    def names(self, suffixes: frozenset[str], skip: str | None) -> list[str]:
        """Returns the names with one of the suffixes, sorted by their bytes, but for the folder `skip`."""

    def manifest(self) -> list[Entry] | None:
        """Returns the entries of the manifest, or None if there is none."""

    def found(self, ref: str) -> Source:
        """Returns the item of a name that `names` returned."""

    def named(self, ref: str, facts: dict[str, Any]) -> Source:
        """Returns the item of a name that a manifest states, which may be any text."""


def _place(source: str | Path, under: str, limits: BucketConfig | None) -> _Place:
    if is_remote(source):
        return _Prefix(str(source), under, limits or BucketConfig())
    return _Folder(Path(source), under)


def _of_entry(place: _Place, entry: Entry) -> Source:
    facts: dict[str, Any] = {name: value for name, value in vars(entry).items() if name != "target"}
    if entry.target.startswith("s3://"):
        return Source(entry.target, None, remote=entry.target, **facts)
    return place.named(entry.target, facts)


def _only_manifest(place: str, names: Iterable[str]) -> str | None:
    found = sorted(set(MANIFEST_NAMES) & set(names))
    if len(found) > 1:
        raise VisavisError(
            f"clips.source {place} holds {' and '.join(found)}",
            fix="keep one of them, or set clips.source to the one that counts",
        )
    return found[0] if found else None


def _is_wanted(name: str, suffixes: frozenset[str]) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in suffixes


class _Folder:
    """A local folder, or a manifest in one."""

    def __init__(self, source: Path, under: str) -> None:
        self._under = under
        self._file = source if source.is_file() and source.suffix.lower() in MANIFEST_SUFFIXES else None
        self._root = source if self._file is None else source.parent
        if not self._root.is_dir():
            raise VisavisError(
                f"clips.source is {source}, which is not a folder",
                fix="set clips.source to a folder of video files, to a manifest (.jsonl, .csv or .parquet), "
                "or to one of them as s3://bucket/prefix",
            )
        self._resolved = self._root.resolve()

    def names(self, suffixes: frozenset[str], skip: str | None) -> list[str]:
        found = []
        for parent, folders, names in os.walk(self._root / self._under):
            relative = Path(parent).relative_to(self._root)
            folders[:] = [name for name in folders if not name.startswith(".")]
            if relative == Path():
                folders[:] = [name for name in folders if name != skip]
            found += [str(relative / name) for name in names if _is_wanted(name, suffixes)]
        return sorted(found, key=os.fsencode)

    def manifest(self) -> list[Entry] | None:
        if self._file is not None:
            return read_manifest(self._file)
        name = _only_manifest(
            str(self._root), [name for name in MANIFEST_NAMES if (self._root / name).is_file()]
        )
        return None if name is None else read_manifest(self._root / name)

    def found(self, ref: str) -> Source:
        return Source(ref, self._root / ref, ref)

    def named(self, ref: str, facts: dict[str, Any]) -> Source:
        # A manifest is somebody else's text: it must not make us read files outside of its folder.
        try:
            inside = "\0" not in ref and (self._root / ref).resolve().is_relative_to(self._resolved)
        except (OSError, RuntimeError):
            return Source(ref, None, problem="unreadable", **facts)
        if not inside:
            return Source(ref, None, problem="outside_source", **facts)
        return Source(ref, self._root / ref, **facts)


class _Prefix:
    """The objects below a prefix of a bucket, or a manifest among them."""

    def __init__(self, source: str, under: str, limits: BucketConfig) -> None:
        bucket, key = split_uri(source)
        self._limits = limits
        self._file: str | None = None
        if key.lower().endswith(MANIFEST_SUFFIXES):
            key, _, self._file = key.rpartition("/")
        # A prefix ends where a folder's name ends: `clips` must not take `clips-of-last-year/` along.
        self._root = f"s3://{bucket}/{key.rstrip('/')}/" if key else f"s3://{bucket}/"
        start = len(split_uri(self._root)[1])
        self._etags = {stored.key[start:]: stored.etag for stored in list_objects(self._root + under, limits)}

    def names(self, suffixes: frozenset[str], skip: str | None) -> list[str]:
        found = []
        for ref in self._etags:
            *folders, name = ref.split("/")
            hidden = any(folder.startswith(".") for folder in folders) or (skip and folders[:1] == [skip])
            if not hidden and _is_wanted(name, suffixes):
                found.append(ref)
        return sorted(found, key=str.encode)

    def manifest(self) -> list[Entry] | None:
        name = self._file or _only_manifest(self._root, self._etags)
        if name is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / f"manifest{Path(name).suffix}"
            try:
                download(self._root + name, local, self._limits)
            except DownloadError as error:
                raise VisavisError(
                    f"clips.source {self._root}{name} could not be downloaded: {error.detail['error']}",
                    fix="correct the name or the rights of the key, or repeat the command",
                ) from error
            return read_manifest(local, self._root + name)

    def found(self, ref: str) -> Source:
        uri = self._root + ref
        return Source(ref, None, uri, remote=uri, etag=self._etags.get(ref))

    def named(self, ref: str, facts: dict[str, Any]) -> Source:
        key = "/".join(part for part in ref.split("/") if part != ".")
        if key.startswith("/") or ".." in key.split("/"):
            return Source(ref, None, problem="outside_source", **facts)
        return Source(ref, None, remote=self._root + key, etag=self._etags.get(key), **facts)
