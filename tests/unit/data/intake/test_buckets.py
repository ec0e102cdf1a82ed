import os
import random
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, STRANGER_KEY, STRANGER_SECRET, FaultyProxy

from visavis.data.config import BucketConfig
from visavis.data.intake.buckets import DownloadError, download, list_objects
from visavis.errors import VisavisError
from visavis.s3 import client, is_remote, split_uri

LIMITS = BucketConfig(attempts=2, connect_timeout_s=2, read_timeout_s=1, page_keys=3)
DATA = random.Random(1).randbytes(700_000)


def keys(uri: str, limits: BucketConfig = LIMITS) -> list[str]:
    return [stored.key for stored in list_objects(uri, limits)]


def test_addresses_are_taken_letter_by_letter() -> None:
    assert split_uri("s3://b/a b%20#t?\n人/x.mp4") == ("b", "a b%20#t?\n人/x.mp4")
    assert split_uri("s3://b") == split_uri("s3://b/") == ("b", "")
    assert split_uri(str(Path("s3://b/c"))) == ("b", "c"), "a Path loses a slash"
    assert not is_remote("clips/s3://b") and not is_remote(Path("/data/clips")) and not is_remote("s3://")


def test_all_pages_of_a_listing_are_read(s3_bucket: Any, s3_proxy: FaultyProxy) -> None:
    names = [f"p/{index:02d}.mp4" for index in range(8)]
    for name in [*names, "q/other.mp4"]:
        s3_bucket.put_object(Key=name, Body=name.encode())
    assert keys(f"s3://{BUCKET}/p/") == names
    assert len(s3_proxy.requests) == 3, "pages of three"
    assert len(keys(f"s3://{BUCKET}")) == 9
    assert keys(f"s3://{BUCKET}/nothing/") == []


def test_a_listing_survives_errors_and_silence(s3_bucket: Any, s3_proxy: FaultyProxy) -> None:
    s3_bucket.put_object(Key="a.mp4", Body=b"a")
    for fault in ("error", "hang", "cut"):
        s3_proxy.fail("list-type", fault)
        assert keys(f"s3://{BUCKET}/") == ["a.mp4"], fault
    s3_proxy.fail("list-type", "error", "error")
    with pytest.raises(VisavisError, match="did not answer"):
        keys(f"s3://{BUCKET}/")


@pytest.mark.parametrize("name", ["a b.mp4", "q'u\"o.mp4", "line\nfeed.mp4", "人ü🎬.mp4", "50%+#t=1?&x.mp4"])
def test_any_name_can_be_listed_and_fetched(s3_bucket: Any, tmp_path: Path, name: str) -> None:
    s3_bucket.put_object(Key=f"odd/{name}", Body=name.encode())
    (stored,) = list_objects(f"s3://{BUCKET}/odd/", LIMITS)
    assert stored.key == f"odd/{name}"
    download(f"s3://{BUCKET}/{stored.key}", tmp_path / "x", LIMITS, stored.etag)
    assert (tmp_path / "x").read_bytes() == name.encode()


@pytest.mark.parametrize("fault", ["error", "hang", "cut", "stall", "flip"])
def test_a_download_that_breaks_off_is_fetched_anew(
    s3_bucket: Any, s3_proxy: FaultyProxy, tmp_path: Path, fault: str
) -> None:
    s3_bucket.put_object(Key="v.mp4", Body=DATA)
    s3_proxy.fail("v.mp4", fault)
    download(f"s3://{BUCKET}/v.mp4", tmp_path / "new" / "v", LIMITS)
    assert (tmp_path / "new" / "v").read_bytes() == DATA
    assert len(s3_proxy.requests) == 2


@pytest.mark.parametrize("fault", ["error", "hang", "cut", "stall", "flip"])
def test_a_download_that_never_succeeds_leaves_no_file(
    s3_bucket: Any, s3_proxy: FaultyProxy, tmp_path: Path, fault: str
) -> None:
    s3_bucket.put_object(Key="v.mp4", Body=DATA)
    s3_proxy.fail("v.mp4", fault, fault)
    with pytest.raises(DownloadError) as caught:
        download(f"s3://{BUCKET}/v.mp4", tmp_path / "v", LIMITS)
    assert caught.value.reason == "download_failed" and caught.value.detail["error"]
    assert list(tmp_path.iterdir()) == []
    assert len(s3_proxy.requests) == 2, "attempts do not multiply"


def test_a_download_that_only_trickles_comes_to_an_end(
    s3_bucket: Any, s3_proxy: FaultyProxy, tmp_path: Path
) -> None:
    s3_bucket.put_object(Key="v.mp4", Body=DATA)
    s3_proxy.fail("v.mp4", "drip", "drip")
    with pytest.raises(DownloadError) as caught:
        download(
            f"s3://{BUCKET}/v.mp4", tmp_path / "v", LIMITS.model_copy(update={"download_timeout_s": 1.0})
        )
    assert caught.value.reason == "download_failed" and "too long" in caught.value.detail["error"]
    assert caught.value.detail["attempts"] == 1 and list(tmp_path.iterdir()) == []


def test_the_etag_is_checked_where_the_store_keeps_no_checksum(
    s3_bucket: Any, s3_proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    s3_bucket.put_object(Key="v.mp4", Body=DATA)
    s3_proxy.fail("v.mp4", "flip", "flip")
    with pytest.raises(DownloadError) as caught:
        download(f"s3://{BUCKET}/v.mp4", tmp_path / "v", LIMITS)
    assert caught.value.reason == "download_failed" and "ETag" in caught.value.detail["error"]


def test_the_etag_of_a_sealed_object_is_not_taken_for_its_md5(
    s3_bucket: Any, s3_proxy: FaultyProxy, tmp_path: Path
) -> None:
    s3_bucket.put_object(Key="v.mp4", Body=DATA)
    s3_proxy.fail("v.mp4", "sealed")
    download(f"s3://{BUCKET}/v.mp4", tmp_path / "v", LIMITS)
    assert (tmp_path / "v").read_bytes() == DATA and len(s3_proxy.requests) == 1


def test_a_stored_sha256_is_checked(s3_bucket: Any, s3_proxy: FaultyProxy, tmp_path: Path) -> None:
    s3_bucket.put_object(Key="v.mp4", Body=DATA, ChecksumAlgorithm="SHA256")
    download(f"s3://{BUCKET}/v.mp4", tmp_path / "v", LIMITS)
    s3_proxy.fail("v.mp4", "flip", "flip")
    with pytest.raises(DownloadError) as caught:
        download(f"s3://{BUCKET}/v.mp4", tmp_path / "v", LIMITS)
    assert "checksum" in caught.value.detail["error"]


def test_an_object_in_parts_has_no_md5_and_still_arrives(s3_bucket: Any, tmp_path: Path) -> None:
    upload = s3_bucket.Object("parts.mp4").initiate_multipart_upload()
    parts = []
    for number, part in enumerate((os.urandom(5 << 20), b"the end"), 1):
        answer = upload.Part(number).upload(Body=part)
        parts.append((part, {"PartNumber": number, "ETag": answer["ETag"]}))
    upload.complete(MultipartUpload={"Parts": [entry for _, entry in parts]})
    (stored,) = list_objects(f"s3://{BUCKET}/", LIMITS)
    assert stored.etag is not None and "-2" in stored.etag
    download(f"s3://{BUCKET}/parts.mp4", tmp_path / "v", LIMITS, stored.etag)
    assert (tmp_path / "v").read_bytes() == b"".join(part for part, _ in parts)


def test_an_object_that_has_gone_or_changed_is_its_own_reason(s3_bucket: Any, tmp_path: Path) -> None:
    s3_bucket.put_object(Key="v.mp4", Body=b"old")
    (stored,) = list_objects(f"s3://{BUCKET}/", LIMITS)
    s3_bucket.put_object(Key="v.mp4", Body=b"new")
    with pytest.raises(DownloadError, match="object_changed"):
        download(f"s3://{BUCKET}/v.mp4", tmp_path / "v", LIMITS, stored.etag)
    with pytest.raises(DownloadError, match="missing_file"):
        download(f"s3://{BUCKET}/w.mp4", tmp_path / "v", LIMITS)


def test_a_missing_bucket_and_a_refused_key_say_what_to_do(
    s3_bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VisavisError, match="no bucket 'elsewhere'"):
        keys("s3://elsewhere/p")
    with pytest.raises(VisavisError, match="no bucket 'not a name'"):
        keys("s3://not a name/p")
    wrong = [("nobody", "x"), (STRANGER_KEY, STRANGER_SECRET), (STRANGER_KEY, "x")]
    for key, secret in wrong:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        client.cache_clear()
        with pytest.raises(VisavisError, match="AWS_ACCESS_KEY_ID") as refused:
            keys(f"s3://{BUCKET}/p")
        assert secret == "x" or secret not in str(refused.value)
        with pytest.raises(DownloadError, match="download_refused"):
            download(f"s3://{BUCKET}/v.mp4", tmp_path / "v", LIMITS)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    client.cache_clear()
    with pytest.raises(VisavisError, match="AWS_ACCESS_KEY_ID"):
        keys(f"s3://{BUCKET}/p")


def test_a_store_that_is_not_there_says_where_it_was_looked_for(
    s3_bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for endpoint, message in (("http://127.0.0.1:9", "127.0.0.1:9"), ("127.0.0.1:9", "AWS_ENDPOINT_URL")):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        client.cache_clear()
        with pytest.raises(VisavisError, match=message):
            keys(f"s3://{BUCKET}/p")
