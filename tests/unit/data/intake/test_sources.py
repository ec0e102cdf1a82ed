import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disc_world import Disc, DiscFaces, make_source, write_clip
from s3_server import BUCKET, FaultyProxy

from visavis.data.config import BucketConfig, CurateConfig
from visavis.data.curation.clips import curate
from visavis.data.intake.buckets import DownloadError
from visavis.data.intake.sources import ReadJob, Source, list_clips, list_pictures
from visavis.data.ledger import read_ledger
from visavis.data.video.decode import Clip, DecodeJob, Rejected
from visavis.data.video.guard import guarded_map
from visavis.errors import VisavisError
from visavis.files import write_jsonl

LIMITS = BucketConfig(attempts=2, connect_timeout_s=2, read_timeout_s=1)
PAIR = [Disc("red", 60), Disc("green", 125)]
ODD = ["a b.mp4", "q'u\"o.MKV", "line\nfeed.mp4", "人ü🎬.mp4", "sub/50%+#t=1?.mov"]


def refs(items: list[Source]) -> list[str]:
    return [item.ref for item in items]


def put(bucket: Any, *names: str) -> None:
    for name in names:
        bucket.put_object(Key=name, Body=name.encode())


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def read_job(item: Source, folder: Path) -> ReadJob:
    return ReadJob(item, folder, LIMITS, DecodeJob("", 0.2, 10**7, 6, 27.0))


def test_a_folder_is_walked_in_a_stable_order_without_following_folders(tmp_path: Path) -> None:
    names = [
        *ODD,
        ".hidden/a.mp4",
        ".a.mp4",
        "pictures/a.mp4",
        "pictures/b.PNG",
        "sub/pictures/c.mp4",
        "d.txt",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "z.mp4").symlink_to("/somewhere/else.mp4")
    found = list_clips(tmp_path)
    assert refs(found) == sorted([*ODD, "sub/pictures/c.mp4", "z.mp4"], key=os.fsencode)
    assert all(item.path == tmp_path / item.ref and item.uri == item.ref for item in found)
    assert list_clips(str(tmp_path)) == found
    assert refs(list_pictures(tmp_path)) == ["pictures/b.PNG"]


def test_a_manifest_may_be_the_source_or_lie_in_it(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("file,licence\na.mp4,MIT\n../b.mp4,MIT\ns3://b/c.mp4,CC0-1.0\n")
    (tmp_path / "list.jsonl").write_text('{"file": "a.mp4", "uri": "https://example.org/a"}')
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "p.png").touch()
    a, b, c = list_clips(tmp_path)
    assert (a.path, a.licence, a.problem) == (tmp_path / "a.mp4", "MIT", None)
    assert (b.path, b.problem) == (None, "outside_source")
    assert (c.path, c.remote, c.uri, c.licence) == (None, "s3://b/c.mp4", "s3://b/c.mp4", "CC0-1.0")
    assert [item.uri for item in list_clips(tmp_path / "list.jsonl")] == ["https://example.org/a"]
    assert refs(list_pictures(tmp_path / "list.jsonl")) == ["pictures/p.png"]
    (tmp_path / "clips.parquet").touch()
    with pytest.raises(VisavisError, match=r"clips\.csv and clips\.parquet"):
        list_clips(tmp_path)


def test_what_is_no_source_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    for source in (tmp_path / "nowhere", tmp_path / "nowhere.csv", tmp_path / "a.mp4"):
        with pytest.raises(VisavisError, match=r"clips\.source"):
            list_clips(source)


def test_a_prefix_is_listed_like_a_folder(s3_bucket: Any, tmp_path: Path) -> None:
    names = [
        *ODD,
        ".hidden/a.mp4",
        ".a.mp4",
        "pictures/a.mp4",
        "pictures/b.PNG",
        "sub/pictures/c.mp4",
        "d.txt",
    ]
    put(s3_bucket, *(f"set/{name}" for name in names), "set-of-last-year/x.mp4")
    found = list_clips(f"s3://{BUCKET}/set", LIMITS)
    assert refs(found) == sorted([*ODD, "sub/pictures/c.mp4"], key=os.fsencode)
    assert (
        list_clips(f"s3://{BUCKET}/set/", LIMITS) == list_clips(Path(f"s3://{BUCKET}/set"), LIMITS) == found
    )
    for item in found:
        assert item.uri == item.remote == f"s3://{BUCKET}/set/{item.ref}"
        with item.opened(tmp_path, LIMITS) as path:
            assert path.read_text() == f"set/{item.ref}"
    assert refs(list_pictures(f"s3://{BUCKET}/set", LIMITS)) == ["pictures/b.PNG"]
    assert "set-of-last-year/x.mp4" in refs(list_clips(f"s3://{BUCKET}", LIMITS))


def test_a_new_object_under_an_old_name_is_another_source(s3_bucket: Any) -> None:
    put(s3_bucket, "set/a.mp4")
    before = list_clips(f"s3://{BUCKET}/set", LIMITS)
    s3_bucket.put_object(Key="set/a.mp4", Body=b"other")
    assert list_clips(f"s3://{BUCKET}/set", LIMITS) != before


def test_a_manifest_in_a_bucket_is_honoured(s3_bucket: Any, tmp_path: Path) -> None:
    put(s3_bucket, "set/a.mp4", "set/b.mp4", "set/not listed.mp4")
    rows = "file,licence,consent\n./a.mp4,MIT,yes\nb.mp4,,no\n../c.mp4,,\n/d.mp4,,\ns3://other/e.mp4,MIT,\ngone.mp4,,\n"
    s3_bucket.put_object(Key="set/clips.csv", Body=rows.encode())
    found = list_clips(f"s3://{BUCKET}/set", LIMITS)
    assert [(item.remote, item.consent, item.problem) for item in found] == [
        (f"s3://{BUCKET}/set/a.mp4", True, None),
        (f"s3://{BUCKET}/set/b.mp4", False, None),
        (None, None, "outside_source"),
        (None, None, "outside_source"),
        ("s3://other/e.mp4", None, None),
        (f"s3://{BUCKET}/set/gone.mp4", None, None),
    ]
    assert [item.etag is not None for item in found] == [True, True, False, False, False, False]
    assert list_clips(f"s3://{BUCKET}/set/clips.csv", LIMITS) == found
    s3_bucket.put_object(Key="set/clips.jsonl", Body=b'{"file": "a.mp4"}\n{')
    with pytest.raises(VisavisError, match=r"clips\.csv and clips\.jsonl"):
        list_clips(f"s3://{BUCKET}/set", LIMITS)
    with pytest.raises(VisavisError, match=rf"s3://{BUCKET}/set/clips\.jsonl, line 2"):
        list_clips(f"s3://{BUCKET}/set/clips.jsonl", LIMITS)
    table = pa.Table.from_pylist([{"file": "a.mp4", "licence": "MIT"}])
    pq.write_table(table, tmp_path / "list.parquet")
    s3_bucket.upload_file(str(tmp_path / "list.parquet"), "set/list.parquet")
    (item,) = list_clips(f"s3://{BUCKET}/set/list.parquet", LIMITS)
    assert (item.remote, item.licence) == (f"s3://{BUCKET}/set/a.mp4", "MIT")
    with pytest.raises(VisavisError, match=r"gone\.csv could not be downloaded"):
        list_clips(f"s3://{BUCKET}/set/gone.csv", LIMITS)


def test_an_object_is_there_while_it_is_read_and_no_longer(
    s3_bucket: Any, s3_proxy: FaultyProxy, tmp_path: Path
) -> None:
    put(s3_bucket, "a.mp4", "b.mp4")
    a, b = list_clips(f"s3://{BUCKET}", LIMITS)
    for item in (a, b, a):
        with item.opened(tmp_path, LIMITS) as path:
            assert path.read_text() == item.ref
        assert files(tmp_path) == []
    s3_proxy.fail("a.mp4", "cut", "cut")
    with pytest.raises(DownloadError, match="download_failed"), a.opened(tmp_path, LIMITS):
        pass
    assert files(tmp_path) == []


def test_spans_of_one_object_share_a_download(s3_bucket: Any, s3_proxy: FaultyProxy, tmp_path: Path) -> None:
    remote = [f"s3://{BUCKET}/{name}" for name in ("a.mp4", "b.mp4")]
    put(s3_bucket, "a.mp4", "b.mp4")
    for uri in remote:
        for second in range(3):
            item = Source(f"{uri}#{second}", None, uri, remote=uri, span=(second, second + 1.0))
            with item.opened(tmp_path, LIMITS) as path:
                assert path.read_text() == uri[-5:]
            assert len(files(tmp_path)) == 1, "the other object is not kept"
    assert len([path for path in s3_proxy.requests if ".mp4" in path]) == 2


def test_a_local_file_is_opened_where_it_is_and_a_refused_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (item,) = list_clips(tmp_path)
    with item.opened(tmp_path / "downloads", LIMITS) as path:
        assert path == tmp_path / "a.mp4"
    assert path.is_file() and not (tmp_path / "downloads").exists()
    refused = Source("../b.mp4", None, "b", problem="outside_source")
    with pytest.raises(ValueError, match="outside_source"), refused.opened(tmp_path, LIMITS):
        pass


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_read_objects_and_a_lost_one_costs_only_itself(
    s3_bucket: Any, s3_proxy: FaultyProxy, tmp_path: Path, workers: int
) -> None:
    s3_bucket.upload_file(str(write_clip(tmp_path / "pair.mp4", PAIR)), "good.mp4")
    put(s3_bucket, "lost.mp4", "text.mp4")
    write_jsonl(
        tmp_path / "clips.jsonl",
        [
            *({"file": f"s3://{BUCKET}/{name}.mp4"} for name in ("good", "lost", "gone", "text")),
            {"file": "pair.mp4"},
        ],
    )
    s3_proxy.fail("lost.mp4", "error", "error")
    jobs = [read_job(item, tmp_path / "downloads") for item in list_clips(tmp_path)]
    found = [
        outcome.value
        for outcome in guarded_map("visavis.data.intake.sources:read_source", jobs, workers, 60.0)
    ]
    reasons = [None if isinstance(value, Clip) else value.reason for value in found]
    assert reasons == [None, "download_failed", "missing_file", "not_a_video", None]
    assert isinstance(found[1], Rejected) and "500" in found[1].detail["error"]
    assert found[0].sha256 == found[4].sha256
    assert files(tmp_path / "downloads") == []


def test_a_store_with_faults_costs_single_clips_and_the_run_goes_on(
    s3_bucket: Any, s3_proxy: FaultyProxy, tmp_path: Path
) -> None:
    hues = ["red", "green", "cyan", "pink"]
    faults = ["error", "hang", "cut", "flip"]
    for index, (hue, fault) in enumerate(zip(hues, faults, strict=True)):
        clip = write_clip(tmp_path / "clip.mp4", [Disc(hue, 60), Disc("blue", 125)])
        s3_bucket.upload_file(str(clip), f"set/{index} good.mp4")
        s3_bucket.upload_file(str(clip), f"set/{index} {fault}.mp4")
        s3_proxy.fail(f"{fault}.mp4", fault, fault)
    s3_bucket.upload_file(str(make_source(tmp_path / "s", 0) / "pictures" / "0.png"), "set/pictures/0.png")
    out = tmp_path / "out"
    config = CurateConfig(workers=2, buckets=LIMITS)
    counts = curate(f"s3://{BUCKET}/set", out, config, DiscFaces())
    assert counts == {"in": 8, "kept": 4, "dropped": {"download_failed": 4}}
    rows = {row.detail["source_uri"]: row.reason for row in read_ledger(out / "ledger.jsonl")}
    for index, fault in enumerate(faults):
        assert rows[f"s3://{BUCKET}/set/{index} good.mp4"] is None
        assert rows[f"s3://{BUCKET}/set/{index} {fault}.mp4"] == "download_failed"
    assert [row.status for row in read_ledger(out / "pictures_ledger.jsonl")] == ["kept"]
    assert not [path for path in files(out) if path.suffix in (".mp4", ".part")]
