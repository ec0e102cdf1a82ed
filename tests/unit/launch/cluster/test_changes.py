"""Runs on changed clips only, on a real S3 server: what counts is what the bucket holds and what became of the runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kfp_server import KfpServer

Call = Callable[..., Any]
AGAIN = ("submit-if-changed", "--recipe", "smoke", "--source", "s3://clips/all")


@pytest.fixture(autouse=True)
def clips(bucket: Any) -> Any:
    for name in ("a.mp4", "b.mp4"):
        bucket.put_object(Key=f"all/{name}", Body=name.encode())
    return bucket


def test_the_same_clips_are_enough_once(call: Call, server: KfpServer) -> None:
    call(*AGAIN)
    (run_id,) = server.runs
    assert len(server.told(run_id)["data_hash"]) == 64
    for state in ("PENDING", "RUNNING", "SUCCEEDED"):
        server.play(run_id, state)
        said = call(*AGAIN).stdout
        assert "nothing has changed" in said and run_id in said
    assert len(server.runs) == 1


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_came_to_nothing_is_not_enough(call: Call, server: KfpServer, state: str) -> None:
    call(*AGAIN)
    server.play(next(iter(server.runs)), state)
    call(*AGAIN)
    assert len(server.runs) == 2
    assert "nothing has changed" in call(*AGAIN).stdout


def test_every_change_of_the_clips_counts(call: Call, server: KfpServer, clips: Any) -> None:
    call(*AGAIN)
    clips.put_object(Key="all/b.mp4", Body=b"other bytes, same name")
    call(*AGAIN)
    clips.put_object(Key="all/c.mp4", Body=b"c")
    call(*AGAIN)
    clips.Object("all/a.mp4").delete()
    call(*AGAIN)
    assert len(server.runs) == len({server.told(run)["data_hash"] for run in server.runs}) == 4
    clips.put_object(Key="all/notes.txt", Body=b"no clip")
    clips.put_object(Key="elsewhere/d.mp4", Body=b"not ours")
    assert "nothing has changed" in call(*AGAIN).stdout


def test_another_recipe_pipeline_or_namespace_has_runs_of_its_own(call: Call, server: KfpServer) -> None:
    call(*AGAIN)
    call(*AGAIN, "curate.min_face=0.3")
    call(*AGAIN, "--pipeline", "curate")
    call(*AGAIN, "--namespace", "team-b")
    assert len(server.runs) == 4
    for more in ((), ("curate.min_face=0.3",), ("--pipeline", "curate"), ("--namespace", "team-b")):
        assert "nothing has changed" in call(*AGAIN, *more).stdout


def test_a_run_that_was_submitted_by_hand_is_not_taken_for_one_of_ours(call: Call, server: KfpServer) -> None:
    call("submit", "--recipe", "smoke", "--source", "s3://clips/all")
    (run,) = server.runs.values()
    server.runs["odd"] = {**run, "run_id": "odd", "runtime_config": {"parameters": {"context": "[not json"}}}
    call(*AGAIN)
    assert len(server.runs) == 3


def test_an_empty_or_refused_bucket_begins_nothing(
    call: Call, server: KfpServer, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "holds no clips" in call(*AGAIN[:-1], "s3://clips/nothing-here", code=2).stderr
    assert "no-such-bucket" in call(*AGAIN[:-1], "s3://no-such-bucket/x", code=2).stderr
    assert not server.runs
