"""A folder of this machine that is kept equal to a prefix of a bucket while somebody works in it.

What a run says of itself is small and changes: timings, progress, curves, calls that wait for MLflow. It is written
as plain files; a thread brings what changed into the bucket, so that a killed pod has told nearly all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from visavis import s3
from visavis.errors import VisavisError

log = logging.getLogger("visavis.mirror")

_FIRST_SECONDS, _SECONDS = 0.5, 10.0
_FOLLOW_SECONDS = 3.0


@contextmanager
def mirrored(
    uri: str, keep: str, bring: Iterable[str] | None = None, folder: Path | None = None
) -> Iterator[Path]:
    """Yields a folder to work in; when the block ends, what it holds is where `uri` says.

    Args:
        uri: A folder of this machine, which is yielded itself, or `s3://bucket/prefix`.
        keep: Pattern of the files that are kept equal in the bucket, relative to the folder; `*` goes across `/`.
        bring: Files to begin with; None brings all that fit the pattern.
        folder: Folder of this machine for what lies in a bucket; by default that of `s3.scratch_for`.

    Raises:
        VisavisError: If the store does not answer. After another error that is only a warning.
    """
    if not s3.is_remote(uri):
        yield Path(uri)
        return
    mirror = _Mirror(uri, keep, folder or s3.scratch_for(uri))
    mirror.bring(s3.listed(uri) if bring is None else bring)
    mirror.start()
    try:
        yield mirror.folder
    except BaseException:
        mirror.stop()
        mirror.try_round()
        raise
    mirror.stop()
    mirror.round()


class _Mirror:
    def __init__(self, uri: str, keep: str, folder: Path) -> None:
        self.folder, self._uri, self._keep = folder, uri, keep
        self._known: dict[str, tuple[int, int]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._failed = False

    def bring(self, names: Iterable[str]) -> None:
        """Brings files here; one that the bucket does not have is not here either."""

        def one(name: str) -> None:
            path = s3.inside(self.folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)  # where it is going to be written
            found = s3.read(s3.below(self._uri, name))
            if found is None:
                path.unlink(missing_ok=True)
                return
            path.write_bytes(found[0])
            self._known[name] = _state(path)

        self.folder.mkdir(parents=True, exist_ok=True)
        s3.each(one, [name for name in names if fnmatchcase(name, self._keep)])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._closing.set()
        self._thread.join()

    def round(self) -> None:
        """Uploads what changed and removes what went."""
        for name, state in self._files().items():
            if self._known.get(name) != state:
                try:
                    s3.upload(self.folder, [name], self._uri)
                except FileNotFoundError:
                    continue  # it went just now
                self._known[name] = state
        gone = [name for name in self._known if not (self.folder / name).is_file()]
        if gone:
            s3.remove(self._uri, gone)
        for name in gone:
            del self._known[name]

    def try_round(self) -> None:
        try:
            self.round()
        except (VisavisError, OSError) as error:
            if not self._failed:
                log.warning("what was written in %s is not in the bucket yet: %s", self.folder, error)
            self._failed = True

    def _files(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if fnmatchcase(name, self._keep) and path.suffix != ".tmp" and path.is_file():
                try:
                    found[name] = _state(path)
                except FileNotFoundError:
                    continue
        return found

    def _work(self) -> None:
        wait = _FIRST_SECONDS
        while not self._closing.wait(wait):
            self.try_round()
            wait = _SECONDS


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@contextmanager
def followed(uri: str, folder: Path, leave: str) -> Iterator[None]:
    """Brings what others write below a prefix into a folder, again and again until the block ends.

    Args:
        uri: `s3://bucket/prefix`, or a folder, which then is the one to look at and needs no copy.
        folder: Where people look.
        leave: Pattern of what is left out.
    """
    if not s3.is_remote(uri):
        yield
        return
    closing, known = threading.Event(), dict[str, str]()

    def look() -> None:
        found = s3.listed(uri)
        for name, tag in found.items():
            if known.get(name) != tag and not fnmatchcase(name, leave):
                path = s3.inside(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f".{path.name}.part")
                s3.bring_file(s3.below(uri, name), partial)
                partial.replace(path)
                known[name] = tag
        for name in known.keys() - found.keys():
            s3.inside(folder, name).unlink(missing_ok=True)
            del known[name]

    def try_look() -> None:
        try:
            look()
        except (VisavisError, OSError) as error:
            log.warning("cannot see how the run goes on: %s", error)

    def work() -> None:
        while not closing.wait(_FOLLOW_SECONDS):
            try_look()

    thread = threading.Thread(target=work, name="follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()
        try_look()
