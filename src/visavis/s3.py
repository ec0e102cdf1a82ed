"""What lies in an S3 store: addresses, one patient client, files that come and go whole.

Endpoint, region and credentials are boto3's business (`AWS_ENDPOINT_URL`, `AWS_PROFILE`, ...); nothing of it is ours.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from visavis.errors import TransientError, VisavisError
from visavis.files import locked, sha256_once

SCRATCH = "VISAVIS_SCRATCH"
"""Environment variable with the folder for what is brought here from a bucket."""
MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "404", "ParamValidationError"})
REFUSED = frozenset(
    {
        "AccessDenied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "401",
        "403",
    }
    | {"NoCredentialsError", "PartialCredentialsError"}
)
CHANGED = frozenset({"PreconditionFailed", "412"})
"""Codes of answers, and names of boto3's own errors."""
_BUSY = frozenset({"ConditionalRequestConflict", "409"})
_ATTEMPTS, _LONGEST_PAUSE_S = 10, 20.0
_FILES_AT_ONCE, _PARTS_AT_ONCE = 8, 4
_DELETED_AT_ONCE = 1000
# The second slash is lost where the address was held as a `Path`.
_ADDRESS = re.compile(r"s3:/{1,2}(?P<bucket>[^/]+)(?:/(?P<key>.*))?", re.DOTALL)


def is_remote(source: str | Path) -> bool:
    """Tells whether a source is an `s3://` address."""
    return _ADDRESS.fullmatch(str(source)) is not None


def split_uri(uri: str) -> tuple[str, str]:
    """Returns bucket and key of `s3://bucket/key`; the key is taken letter by letter and may be empty.

    Raises:
        VisavisError: If it is no such address.
    """
    found = _ADDRESS.fullmatch(uri)
    if found is None:
        raise VisavisError(f"{uri!r} is not an s3:// address", fix="write s3://bucket/prefix")
    return found["bucket"], found["key"] or ""


def below(uri: str, *names: str) -> str:
    """Returns the address of something below a prefix."""
    return "/".join((uri.rstrip("/"), *names))


def scratch_for(uri: str) -> Path:
    """Returns the folder of this machine for what lies at an address.

    All of it is below `VISAVIS_SCRATCH`, by default `visavis` in the folder for temporary files.
    """
    bucket, key = split_uri(uri)
    root = Path(os.environ.get(SCRATCH) or Path(tempfile.gettempdir()) / "visavis")
    return inside(root.resolve() / bucket, key.strip("/")) if key.strip("/") else root.resolve() / bucket


def inside(folder: Path, name: str) -> Path:
    """Returns the file of a folder that has the name of an object.

    Raises:
        VisavisError: If the name would lead out of the folder.
    """
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise VisavisError(f"object {name!r} would lie outside the folder {folder}", fix="rename the object")
    return folder / pure


@lru_cache(maxsize=8)
def client(attempts: int = _ATTEMPTS, connect_timeout_s: float = 10.0, read_timeout_s: float = 60.0) -> Any:
    """Returns boto3's client, which tries failed requests again.

    Raises:
        VisavisError: If boto3 is not installed or not configured.
    """
    try:
        from boto3.session import Config, Session
    except ImportError:
        raise VisavisError(
            "s3:// addresses need boto3, which is not installed", fix="pip install 'visavis[bucket]'"
        ) from None
    config = Config(
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        max_pool_connections=_FILES_AT_ONCE * _PARTS_AT_ONCE,
    )
    try:
        return Session().client("s3", config=config)
    except Exception as error:
        raise VisavisError(
            f"boto3 cannot be set up for s3:// addresses: {error}",
            fix="correct the AWS_... variables (AWS_ENDPOINT_URL, AWS_PROFILE, ...) or the files of ~/.aws",
        ) from error


def kind(error: BaseException) -> str:
    """Returns the code of an answer, or the name of an error without one: they come from several libraries."""
    for candidate in (error, error.__context__):  # an upload that failed hides the answer in a second error
        response = getattr(candidate, "response", None) or {}
        if code := response.get("Error", {}).get("Code"):
            return str(code)
    return type(error).__name__


def explained(uri: str, error: Exception) -> VisavisError:
    """Returns what people should read of an error that boto3 raised about an address; no answer is transient."""
    endpoint, found = client().meta.endpoint_url, kind(error)
    if found in MISSING:
        return VisavisError(
            f"{uri} is not in the store {endpoint}: {error}",
            fix="correct the address, or set AWS_ENDPOINT_URL to the store that has it",
        )
    if found in REFUSED:
        return VisavisError(
            f"the store {endpoint} refuses {uri}: {error}",
            fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) to a key that may read and write it",
        )
    return TransientError(
        f"the store {endpoint} did not answer for {uri}: {error}",
        fix="check AWS_ENDPOINT_URL and that the store is up, then run this again",
    )


@contextmanager
def _asking(uri: str) -> Iterator[None]:
    try:
        yield
    except (VisavisError, OSError):
        raise
    except Exception as error:  # whatever boto3 and the libraries below it raise
        raise explained(uri, error) from error


def listed(uri: str) -> dict[str, str]:
    """Returns the objects below a prefix: name relative to it -> tag that changes with the bytes."""
    bucket, key = split_uri(uri)
    prefix = f"{key.rstrip('/')}/" if key else ""
    with _asking(uri):
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {
            entry["Key"].removeprefix(prefix): str(entry.get("ETag", ""))
            for page in pages
            for entry in page.get("Contents", ())
            if not entry["Key"].endswith("/")
        }


def read_all(uri: str, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of the small files of a folder that fit a pattern, in the order of their names.

    Args:
        uri: Folder on this machine or in a bucket.
        pattern: Of the names relative to it, with as many parts; `*` stays within one.
    """
    if not is_remote(uri):
        for path in sorted(Path(uri).glob(pattern)):
            yield path.relative_to(uri).as_posix(), path.read_bytes()
        return
    depth = len(PurePosixPath(pattern).parts)
    for name in sorted(listed(uri)):
        pure = PurePosixPath(name)
        if len(pure.parts) == depth and pure.match(pattern) and (found := read(below(uri, name))):
            yield name, found[0]


def read(uri: str) -> tuple[bytes, str] | None:
    """Returns the bytes of a small object and its tag; None if it is not there."""
    bucket, key = split_uri(uri)
    for attempt in range(_ATTEMPTS):
        _pause(attempt)
        with _asking(uri):
            try:
                answer = client().get_object(Bucket=bucket, Key=key)
            except Exception as error:
                if kind(error) in MISSING - {"NoSuchBucket"}:
                    return None
                raise
            try:  # boto3 has tried the request again itself, but not what breaks off after its beginning
                return answer["Body"].read(), str(answer["ETag"])
            except Exception:
                if attempt == _ATTEMPTS - 1:
                    raise
    raise AssertionError("the last attempt returns or raises")


def write(uri: str, data: bytes, **condition: str) -> bool:
    """Writes a small object; returns False if a condition (`IfNoneMatch="*"`, `IfMatch=tag`) does not hold.

    A repeated request may find what the first one wrote, so False may mean that the object is ours.
    """
    bucket, key = split_uri(uri)
    with _asking(uri):
        for attempt in range(_ATTEMPTS):
            _pause(attempt)
            try:
                client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
            except Exception as error:
                if kind(error) in CHANGED:
                    return False
                if kind(error) not in _BUSY or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return True
    raise AssertionError("the last attempt returns or raises")


def upload(folder: Path, names: Iterable[str], uri: str) -> None:
    """Uploads files of a folder, several at once; each object is there whole or not at all."""
    from boto3.s3.transfer import TransferConfig

    bucket, key = split_uri(uri)
    config = TransferConfig(max_concurrency=_PARTS_AT_ONCE)

    def send(name: str) -> None:
        with _asking(below(uri, name)):
            client().upload_file(str(folder / name), bucket, below(key, name), Config=config)

    each(send, names)


def remove(uri: str, names: Iterable[str]) -> None:
    """Removes objects below a prefix; one that is not there is as good."""
    bucket, key = split_uri(uri)
    keys = [{"Key": below(key, name) if key else name} for name in names]
    with _asking(uri):
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            chunk = keys[start : start + _DELETED_AT_ONCE]
            answer = client().delete_objects(Bucket=bucket, Delete={"Objects": chunk, "Quiet": True})
            if errors := answer.get("Errors"):
                raise VisavisError(
                    f"{errors[0]['Key']} could not be removed from {uri}: {errors[0].get('Message')}",
                    fix="allow this key to delete objects there",
                )


def here(uri: str, hashes: Mapping[str, str]) -> Path:
    """Returns the folder of this machine with files of a folder that may lie in a bucket.

    Args:
        uri: Folder on this machine, which is returned as it is, or in a bucket.
        hashes: sha256 of each file that is needed, by its name; those that are not here yet are brought.

    Raises:
        VisavisError: If a file is missing or is another one, or the store does not answer.
    """
    return bring(uri, hashes, scratch_for(uri)) if is_remote(uri) else Path(uri)


def bring(uri: str, hashes: Mapping[str, str], folder: Path) -> Path:
    """Brings files from below a prefix that are not in a folder yet, each of them checked; returns the folder."""
    _bring_once(uri, tuple(sorted(hashes.items())), folder)
    return folder


@lru_cache(maxsize=64)
def _bring_once(uri: str, hashes: tuple[tuple[str, str], ...], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):
        missing = [pair for pair in hashes if not _is_sound(inside(folder, pair[0]), pair[1])]
        each(lambda pair: _bring(uri, folder, *pair), missing)


def _is_sound(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_once(path) == digest


def _bring(uri: str, folder: Path, name: str, digest: str) -> None:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    found = ""
    try:
        for attempt in range(3):
            _pause(attempt)
            bring_file(below(uri, name), partial)
            partial.replace(target)
            found = sha256_once(target)
            if found == digest:
                return
            target.unlink()
    finally:
        partial.unlink(missing_ok=True)
    raise VisavisError(
        f"{below(uri, name)} has the sha256 {found[:12]}, and its manifest says {digest[:12]}",
        fix=f"it was changed or damaged in the store: restore it, or remove all below {uri} "
        "and run the pipeline again, which makes it anew",
    )


def bring_file(uri: str, target: Path) -> None:
    """Downloads one object as it is now; nothing vouches for its bytes but the store's own checksum."""
    from boto3.s3.transfer import TransferConfig

    bucket, key = split_uri(uri)
    with _asking(uri):
        client().download_file(
            bucket, key, str(target), Config=TransferConfig(max_concurrency=_PARTS_AT_ONCE)
        )


def each(work: Callable[[Any], None], values: Iterable[Any]) -> None:
    """Does something for each value, several at once; the first error ends it."""
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        futures = [pool.submit(work, value) for value in values]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _pause(attempt: int) -> None:
    if attempt:
        time.sleep(min(random.uniform(0.5, 1.0) * 2 ** (attempt - 2), _LONGEST_PAUSE_S))
