"""Lets the tests of this folder import their shared world, `disc_world`, and lends them a bucket."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from s3_server import FaultyProxy, S3Server


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
