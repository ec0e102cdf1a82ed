"""Published checkpoints in a bucket, brought here for an import."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from visavis.data.config import BucketConfig
from visavis.data.intake.buckets import (
    DownloadError,
    StoredObject,
    download,
    list_objects,
)
from visavis.errors import VisavisError
from visavis.files import write_atomic
from visavis.s3 import is_remote, split_uri

# A shard of a large model has gigabytes.
_LIMITS = BucketConfig(download_timeout_s=6 * 3600.0)
_SEALS = ".etags"


@contextmanager
def local_copy(
    source: str, out: Path, paths: Sequence[str], say: Callable[[str], None] = lambda line: None
) -> Iterator[Path]:
    """Yields a local folder with what a source holds.

    The objects of a bucket lie in `.NAME.download` beside the pack until it is made; a command that was killed or
    failed finds there what has arrived whole.

    Args:
        source: A folder, or `s3://bucket/prefix`.
        out: Folder of the pack that is to be made of it.
        paths: What is needed, relative to the source; all of it if empty.
        say: Is told what is being done.

    Raises:
        VisavisError: If there is nothing, or an object does not arrive.
    """
    if not is_remote(source):
        yield Path(source)
        return
    bucket, prefix = split_uri(source)
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    folder = out.parent / f".{out.name}.download"
    count = 0
    for item in list_objects(f"s3://{bucket}/{prefix}", _LIMITS):
        name = item.key.removeprefix(prefix)
        if name.endswith("/") or not _is_needed(name, paths):
            continue
        count += 1
        _bring(bucket, item, folder / _inside(name), folder / _SEALS / name, say)
    if not count:
        raise VisavisError(
            f"{source} holds nothing of what is asked for", fix="correct the address, or --part"
        )
    yield folder
    shutil.rmtree(folder)


def _is_needed(name: str, paths: Sequence[str]) -> bool:
    wanted = [path.strip("/") for path in paths]
    return not wanted or any(name == path or name.startswith(f"{path}/") for path in wanted)


def _inside(name: str) -> str:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise VisavisError(f"object {name!r} would lie outside the folder", fix="rename the object")
    return name


def _bring(bucket: str, item: StoredObject, target: Path, seal: Path, say: Callable[[str], None]) -> None:
    if target.is_file() and item.etag and seal.is_file() and seal.read_text() == item.etag:
        return
    uri = f"s3://{bucket}/{item.key}"
    say(f"downloading {uri}")
    seal.unlink(missing_ok=True)
    try:
        download(uri, target, _LIMITS, item.etag)
    except DownloadError as error:
        raise VisavisError(
            f"{uri} did not arrive: {error.reason}: {error.detail['error']}",
            fix="repeat the command; what has arrived is kept",
        ) from error
    write_atomic(seal, item.etag or "")
