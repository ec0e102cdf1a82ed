"""Hashes and atomic writes: a reader sees the old content or the new, never a half of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK_BYTES = 1 << 20
# (path, modification time in ns, bytes) -> sha256: a process hashes an unchanged file once.
_hashes: dict[tuple[str, int, int], str] = {}


def sha256_bytes(data: bytes) -> str:
    """Returns the hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_once(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file, which is read again only if it was changed since."""
    stat = path.stat()
    key = (str(path.resolve()), stat.st_mtime_ns, stat.st_size)
    if key not in _hashes:
        _hashes[key] = sha256_file(path)
    return _hashes[key]


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds a lock file of this machine; the kernel frees it when its holder dies.

    Args:
        path: The lock file.
        waiting: Is called if another process holds it, before this one waits for it.
    """
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes a file under a temporary name in the same folder, then renames it.

    Raises:
        OSError: If the disk is full or the folder is not writable; the temporary file is removed.
    """
    with atomic_file(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a stream; what is written to it becomes the file when the block ends, or nothing after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON with sorted keys, atomically."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Returns the parsed content of a JSON file."""
    return json.loads(path.read_text())


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object per line, atomically; a row at a time is held in memory."""
    with atomic_file(path) as stream:
        for row in rows:
            stream.write(json.dumps(row, sort_keys=True).encode() + b"\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file a second place: a second name of the same bytes where the disk allows it, else a copy.

    A file that is there is replaced; a place that is its own stays as it is.
    """
    if source == target:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling folder that becomes `path` when the block ends without an error.

    An existing `path` is replaced; on an error the temporary folder is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
