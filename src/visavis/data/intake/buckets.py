"""Objects of an S3 store: which there are below a prefix, and one of them as a checked local file.

Endpoint, region and credentials are boto3's business (`AWS_ENDPOINT_URL`, `AWS_PROFILE`, ...); nothing of it is ours.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from visavis.data.config import BucketConfig
from visavis.errors import VisavisError

_BLOCK_BYTES = 1 << 18
_LONGEST_PAUSE_S = 20.0
_MD5_ETAG = re.compile(r"[0-9a-f]{32}")
# The second slash is lost where the address was held as a `Path`.
_ADDRESS = re.compile(r"s3:/{1,2}(?P<bucket>[^/]+)(?:/(?P<key>.*))?", re.DOTALL)
# Codes of answers, and names of boto3's own errors.
_REFUSED = frozenset(
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
_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "404", "ParamValidationError"})
_CHANGED = frozenset({"PreconditionFailed", "412"})


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


def list_objects(uri: str, limits: BucketConfig) -> Iterator[StoredObject]:
    """Yields the objects whose key begins with that of `uri`, page by page, in the order of the store.

    Raises:
        VisavisError: If the bucket is missing, the key is refused or the store does not answer.
    """
    bucket, prefix = split_uri(uri)
    client = _client(limits)
    paginator = client.get_paginator("list_objects_v2")
    sizes = {"PageSize": limits.page_keys}
    pages = iter(paginator.paginate(Bucket=bucket, Prefix=prefix, PaginationConfig=sizes))
    while True:
        try:
            page = next(pages, None)
        except Exception as error:
            raise _listing_error(uri, bucket, error, client.meta.endpoint_url) from error
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
    client = _client(limits)
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
                answer = client.get_object(Bucket=bucket, Key=key, **only)
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


@lru_cache(maxsize=4)
def _client(limits: BucketConfig) -> Any:
    try:
        from boto3.session import Config, Session
    except ImportError:
        raise VisavisError(
            "s3:// sources need boto3, which is not installed", fix="pip install 'visavis[curate]'"
        ) from None
    config = Config(
        connect_timeout=limits.connect_timeout_s,
        read_timeout=limits.read_timeout_s,
        retries={"total_max_attempts": limits.attempts, "mode": "standard"},
    )
    try:
        return Session().client("s3", config=config)
    except Exception as error:
        raise VisavisError(
            f"boto3 cannot be set up for s3:// sources: {error}",
            fix="correct the AWS_... variables (AWS_ENDPOINT_URL, AWS_PROFILE, ...) or the files of ~/.aws",
        ) from error


def _kind(error: Exception) -> str:
    """Returns the code of an answer, or the name of an error without one: they come from several libraries."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or type(error).__name__)


def _download_error(error: Exception) -> DownloadError:
    kind = _kind(error)
    reasons = ((_MISSING, "missing_file"), (_REFUSED, "download_refused"), (_CHANGED, "object_changed"))
    reason = next((reason for kinds, reason in reasons if kind in kinds), "download_failed")
    return DownloadError(reason, {"error": str(error)})


def _listing_error(uri: str, bucket: str, error: Exception, endpoint: str) -> VisavisError:
    kind = _kind(error)
    if kind in _MISSING:
        return VisavisError(
            f"clips.source is {uri}, but {endpoint} has no bucket {bucket!r}",
            fix="correct the bucket's name, or set AWS_ENDPOINT_URL to the store that has it",
        )
    if kind in _REFUSED:
        return VisavisError(
            f"clips.source is {uri}, but {endpoint} refuses to list it: {error}",
            fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) to a key that may list and read it",
        )
    return VisavisError(
        f"clips.source is {uri}, but {endpoint} did not answer: {error}",
        fix="check AWS_ENDPOINT_URL and that the store is up, then repeat the command",
    )
