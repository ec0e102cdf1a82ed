"""Clips of an S3 store: which objects there are below a prefix, and one of them as a checked local file."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis.data.config import BucketConfig
from visavis.errors import VisavisError
from visavis.s3 import CHANGED, MISSING, REFUSED, client, kind, split_uri

_BLOCK_BYTES = 1 << 18
_LONGEST_PAUSE_S = 20.0
_MD5_ETAG = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class StoredObject:
    """An object of a listing: its key, and the tag that changes with its bytes (None if the store gives none)."""

    key: str
    etag: str | None


class DownloadError(Exception):
    """An object could not be brought here; that is the end of one item, not of the run.

    Attributes:
        reason: `missing_file`, `download_refused`, `object_changed` (since it was listed) or `download_failed`.
        detail: For the ledger: `error`, and `attempts` if it was tried more than once.
    """

    def __init__(self, reason: str, detail: dict[str, Any]) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def list_objects(uri: str, limits: BucketConfig) -> Iterator[StoredObject]:
    """Yields the objects whose key begins with that of `uri`, page by page, in the order of the store.

    Raises:
        VisavisError: If the bucket is missing, the key is refused or the store does not answer.
    """
    bucket, prefix = split_uri(uri)
    asked = _client(limits)
    paginator = asked.get_paginator("list_objects_v2")
    sizes = {"PageSize": limits.page_keys}
    pages = iter(paginator.paginate(Bucket=bucket, Prefix=prefix, PaginationConfig=sizes))
    while True:
        try:
            page = next(pages, None)
        except Exception as error:
            raise _listing_error(uri, bucket, error, asked.meta.endpoint_url) from error
        if page is None:
            return
        for entry in page.get("Contents", ()):
            yield StoredObject(entry["Key"], entry.get("ETag"))


def download(uri: str, target: Path, limits: BucketConfig, etag: str | None = None) -> None:
    """Downloads an object into a file, which is there only if every check was passed.

    What arrives is checked against the announced size, the checksum that the store keeps (SHA-256, CRC32, ...) and,
    where the ETag is the MD5 of the bytes, against that. Whatever breaks off or differs is fetched anew.

    Args:
        uri: `s3://bucket/key`.
        target: File to write.
        limits: Attempts and timeouts.
        etag: Tag of the object that is meant; None takes what is there.

    Raises:
        DownloadError: If it did not arrive whole in any attempt, or is missing, refused or another one by now.
        OSError: If the file cannot be written.
        VisavisError: If boto3 is not installed.
    """
    asked = _client(limits)
    bucket, key = split_uri(uri)
    only = {} if etag is None else {"IfMatch": etag}
    partial = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + limits.download_timeout_s
    broken: Exception | None = None
    try:
        for attempt in range(limits.attempts):
            if attempt:
                time.sleep(min(random.uniform(0.5, 1.0) * 2 ** (attempt - 1), _LONGEST_PAUSE_S))
            try:
                answer = asked.get_object(Bucket=bucket, Key=key, **only)
            except Exception as error:
                # boto3 has retried this request itself.
                raise _download_error(error) from error
            try:
                _receive(answer, bucket, partial, deadline)
            except _BrokenError as error:
                broken = error
                if time.monotonic() >= deadline:
                    break
            else:
                partial.replace(target)
                return
    finally:
        partial.unlink(missing_ok=True)
    raise DownloadError("download_failed", {"error": str(broken), "attempts": attempt + 1}) from broken


class _BrokenError(Exception):
    """The bytes that were stored did not arrive, or others did."""


def _receive(answer: dict[str, Any], bucket: str, path: Path, deadline: float) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("wb") as file:
        for block in _blocks(answer["Body"]):
            if time.monotonic() >= deadline:
                raise _BrokenError(f"it takes too long; {file.tell()} bytes have arrived")
            digest.update(block)
            file.write(block)
    stored = str(answer.get("ETag", "")).strip('"')
    # Encryption with a key of its own and directory buckets make tags that look like an MD5 and are none.
    encrypted = answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer
    is_md5 = _MD5_ETAG.fullmatch(stored) and not encrypted and not bucket.endswith("--x-s3")
    if is_md5 and digest.hexdigest() != stored:
        raise _BrokenError(f"MD5 is {digest.hexdigest()}, the ETag says {stored}")


def _blocks(body: Any) -> Iterator[bytes]:
    """Yields the body of an answer; boto3 itself checks its length and its stored checksum at the end."""
    # `closing`, since the body's own `with` hands out the stream below the checks.
    with closing(body):
        while True:
            try:
                block = body.read(_BLOCK_BYTES)
            except Exception as error:
                raise _BrokenError(str(error)) from error
            if not block:
                return
            yield block


def _client(limits: BucketConfig) -> Any:
    return client(limits.attempts, limits.connect_timeout_s, limits.read_timeout_s)


def _download_error(error: Exception) -> DownloadError:
    found = kind(error)
    reasons = ((MISSING, "missing_file"), (REFUSED, "download_refused"), (CHANGED, "object_changed"))
    reason = next((reason for kinds, reason in reasons if found in kinds), "download_failed")
    return DownloadError(reason, {"error": str(error)})


def _listing_error(uri: str, bucket: str, error: Exception, endpoint: str) -> VisavisError:
    found = kind(error)
    if found in MISSING:
        return VisavisError(
            f"clips.source is {uri}, but {endpoint} has no bucket {bucket!r}",
            fix="correct the bucket's name, or set AWS_ENDPOINT_URL to the store that has it",
        )
    if found in REFUSED:
        return VisavisError(
            f"clips.source is {uri}, but {endpoint} refuses to list it: {error}",
            fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) to a key that may list and read it",
        )
    return VisavisError(
        f"clips.source is {uri}, but {endpoint} did not answer: {error}",
        fix="check AWS_ENDPOINT_URL and that the store is up, then repeat the command",
    )
