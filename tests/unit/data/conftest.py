"""Lets the tests of this folder import their shared world, `disc_world`, and lends them a store with faults."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from s3_server import FaultyProxy, S3Server


@pytest.fixture
def s3_proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy that can break answers; boto3's environment points to it."""
    from s3_server import ACCESS_KEY, SECRET_KEY, FaultyProxy

    from visavis.data.intake import buckets

    proxy = FaultyProxy(s3_server.port)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    buckets._client.cache_clear()
    yield proxy
    buckets._client.cache_clear()
    proxy.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server, s3_proxy: FaultyProxy) -> Any:
    """The bucket `clips`, emptied, as a boto3 resource that reaches the server without the proxy."""
    import boto3
    from s3_server import BUCKET

    bucket = boto3.resource("s3", endpoint_url=s3_server.endpoint).Bucket(BUCKET)
    if bucket.creation_date is None:
        bucket.create()
    bucket.objects.delete()
    return bucket
