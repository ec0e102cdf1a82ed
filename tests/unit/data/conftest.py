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
    from s3_server import FaultyProxy, point_boto3

    from visavis.data.intake import buckets

    proxy = FaultyProxy(s3_server.port)
    point_boto3(monkeypatch, proxy.endpoint)
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
