"""The store of all results, by content key: in a folder of this machine, or in a bucket that many machines share.

A result is `<store>/<step>/<key>`, and what is beside it, not in it, are notes in which two runs of equal work differ.
"""

from __future__ import annotations

import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from typing_extensions import override

from visavis import s3
from visavis.errors import VisavisError
from visavis.files import locked
from visavis.mirror import mirrored
from visavis.steps.contracts import Manifest

log = logging.getLogger("visavis.steps")

MANIFEST_NAME = "manifest.json"
RECORD_SUFFIX, CURVES_SUFFIX = ".run.json", ".curves.jsonl"
"""Endings of the notes: the MLflow run that did the work, and its losses."""
_WORK_SUFFIX = ".partial"
_TRIES = 3


def places_of(root: str | Path) -> tuple[str, str]:
    """Returns where results and runs lie: the folder of all runs holds the store, a prefix of a bucket both."""
    root = str(root)
    return s3.below(root, "store"), s3.below(root, "runs") if s3.is_remote(root) else root


def open_store(uri: str) -> Store:
    """Opens the store in a folder, or at `s3://bucket/prefix`; it need not be there yet."""
    return BucketStore(uri) if s3.is_remote(uri) else FolderStore(Path(uri).resolve())


class Store(ABC):
    """Where results lie.

    Attributes:
        near: Whether results are read where they lie.
    """

    near: bool

    @abstractmethod
    def find(self, step: str, key: str) -> Manifest | None:
        """Returns the manifest of a stored result if every file it names is there."""

    @abstractmethod
    def results(self, pattern: str = "*") -> Iterator[Manifest]:
        """Yields the manifests of all results of the steps whose name fits a pattern, by step and key."""

    @abstractmethod
    def lock(self, step: str, key: str) -> AbstractContextManager[None]:
        """Keeps other processes of this machine from making the same result."""

    @abstractmethod
    def work(self, step: str, key: str) -> Path:
        """Returns the folder of this machine to make a result in."""

    @abstractmethod
    def checkpoints(self, step: str, key: str) -> str:
        """Returns the `s3://` prefix for checkpoints; empty: they lie beside the work, which outlives a kill."""

    @abstractmethod
    def address(self, manifest: Manifest) -> str:
        """Returns where a result is going to lie."""

    @abstractmethod
    def publish(self, manifest: Manifest, work: Path, replace: bool) -> Manifest:
        """Makes what was worked on the result, for all readers at once, and clears away what is left of the work.

        Args:
            manifest: What is in it.
            work: Folder with its files; it is gone afterwards.
            replace: Whether it takes the place of a result of the same key; else the first one stays.

        Returns:
            The manifest of the result that stands.
        """

    @abstractmethod
    def notes(self, results: Iterable[tuple[str, str]]) -> AbstractContextManager[Path]:
        """Yields a folder in which the notes beside results lie as `step/key.SUFFIX`, to be read and written.

        Args:
            results: Step and key of each result.
        """


class FolderStore(Store):
    """A folder. While a step works it writes into `<key>.partial`; the last act is one rename."""

    near = True

    def __init__(self, root: Path) -> None:
        self._root = root

    @override
    def find(self, step: str, key: str) -> Manifest | None:
        folder = self._root / step / key
        if not (folder / MANIFEST_NAME).is_file():
            return None
        manifest = Manifest.read(folder / MANIFEST_NAME)
        if not _all_there(manifest, lambda name: (folder / name).is_file()):
            return None
        return manifest.model_copy(update={"uri": str(folder)})  # the store may have been moved

    @override
    def results(self, pattern: str = "*") -> Iterator[Manifest]:
        for name, content in s3.read_all(str(self._root), f"{pattern}/*/{MANIFEST_NAME}"):
            file = self._root / name
            yield Manifest.parse(content, str(file)).model_copy(update={"uri": str(file.parent)})

    @override
    def lock(self, step: str, key: str) -> AbstractContextManager[None]:
        path = self._root / step / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return locked(path, lambda: log.info("%s: another run is making this result; waiting for it", step))

    @override
    def work(self, step: str, key: str) -> Path:
        return self._root / step / f"{key}{_WORK_SUFFIX}"

    @override
    def checkpoints(self, step: str, key: str) -> str:
        return ""

    @override
    def address(self, manifest: Manifest) -> str:
        return str(self._root / manifest.step / manifest.key)

    @override
    def publish(self, manifest: Manifest, work: Path, replace: bool) -> Manifest:
        _move(work, Path(manifest.uri))
        return manifest

    @override
    def notes(self, results: Iterable[tuple[str, str]]) -> AbstractContextManager[Path]:
        return nullcontext(self._root)


class BucketStore(Store):
    """A prefix of a bucket.

    The files of a result lie in `<step>/<key>/<digest>/`, so that two machines that make one result at a time
    never write over each other's files; `<step>/<key>/manifest.json` is uploaded last and once, and names the
    folder that counts. Work is done in the scratch folder of the machine; checkpoints lie in `<step>/<key>.partial/`.
    """

    near = False

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self._here = FolderStore(s3.scratch_for(self._uri))

    @override
    def find(self, step: str, key: str) -> Manifest | None:
        found, _ = self._read(step, key)
        return found if found and self._is_whole(found) else None

    @override
    def results(self, pattern: str = "*") -> Iterator[Manifest]:
        for name, content in s3.read_all(self._uri, f"{pattern}/*/{MANIFEST_NAME}"):
            manifest = Manifest.parse(content, s3.below(self._uri, name))
            yield manifest.model_copy(update={"uri": self.address(manifest)})

    @override
    def lock(self, step: str, key: str) -> AbstractContextManager[None]:
        return self._here.lock(step, key)

    @override
    def work(self, step: str, key: str) -> Path:
        return self._here.work(step, key)

    @override
    def checkpoints(self, step: str, key: str) -> str:
        return s3.below(self._uri, step, f"{key}{_WORK_SUFFIX}")

    @override
    def address(self, manifest: Manifest) -> str:
        return s3.below(self._uri, manifest.step, manifest.key, manifest.digest[:16])

    @override
    def publish(self, manifest: Manifest, work: Path, replace: bool) -> Manifest:
        standing = self._settled(manifest, work, replace)
        if standing.digest != manifest.digest:
            log.info("%s: another run has made this result meanwhile; that one stays", manifest.step)
            _clear(manifest.uri)
            shutil.rmtree(work)
            return standing
        if (
            not replace
        ):  # what killed attempts have left; after a replacement some may read the result before it
            digest = manifest.uri.rpartition("/")[2]
            _clear(s3.below(self._uri, manifest.step, manifest.key), (MANIFEST_NAME, f"{digest}/"))
        _clear(self.checkpoints(manifest.step, manifest.key))
        _move(work, s3.scratch_for(manifest.uri))
        return standing

    @override
    def notes(self, results: Iterable[tuple[str, str]]) -> AbstractContextManager[Path]:
        names = [f"{step}/{key}" for step, key in results]
        return mirrored(
            self._uri,
            f"{names[0]}.*" if len(names) == 1 else "*",
            [f"{name}{suffix}" for name in names for suffix in (RECORD_SUFFIX, CURVES_SUFFIX)],
            s3.scratch_for(self._uri) / ".notes",
        )

    def _settled(self, manifest: Manifest, work: Path, replace: bool) -> Manifest:
        """Uploads a result unless there is one; returns the one that stands."""
        place = self._manifest_uri(manifest.step, manifest.key)
        for _ in range(_TRIES):
            earlier, tag = self._read(manifest.step, manifest.key)
            if earlier and not replace and self._is_whole(earlier):
                return earlier
            s3.upload(work, manifest.files, manifest.uri)
            # Of two that come to this point at a time, one finds the other's manifest, and looks again.
            condition = {} if replace else {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
            if s3.write(place, (work / MANIFEST_NAME).read_bytes(), **condition):
                return manifest
        raise VisavisError(
            f"{place} changes again and again", fix="look at who writes there, then run this again"
        )

    def _manifest_uri(self, step: str, key: str) -> str:
        return s3.below(self._uri, step, key, MANIFEST_NAME)

    def _read(self, step: str, key: str) -> tuple[Manifest | None, str]:
        """Returns a stored manifest and the tag of its object."""
        place = self._manifest_uri(step, key)
        found = s3.read(place)
        if found is None:
            return None, ""
        manifest = Manifest.parse(found[0], place)
        return manifest.model_copy(update={"uri": self.address(manifest)}), found[1]

    def _is_whole(self, manifest: Manifest) -> bool:
        return _all_there(manifest, s3.listed(manifest.uri).__contains__)


def _all_there(manifest: Manifest, is_there: Callable[[str], bool]) -> bool:
    missing = next((name for name in manifest.files if not is_there(name)), None)
    if missing is not None:
        log.warning("%s: %s of the stored result is missing: it is made again", manifest.step, missing)
    return missing is None


def _clear(uri: str, spare: tuple[str, ...] = ()) -> None:
    s3.remove(uri, [name for name in s3.listed(uri) if not name.startswith(spare)])


def _move(work: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)  # a result with missing files, or one that is replaced
    folder.parent.mkdir(parents=True, exist_ok=True)
    work.replace(folder)
