import os
import time
from pathlib import Path

import pytest

from visavis.data.video.guard import guarded_map


def test_one_bad_item_costs_only_itself() -> None:
    items = ["a", "hang", "b", "crash", "c", "fail", "d"]
    outcomes = list(guarded_map("hostile_work:hostile", items, workers=2, timeout_s=3.0))
    assert [o.value for o in outcomes] == ["aa", None, "bb", None, "cc", None, "dd"]
    assert [o.failure for o in outcomes] == [None, "timeout", None, "crashed", None, "error", None]
    assert "ValueError" in outcomes[5].message


def test_without_workers_failures_are_still_caught() -> None:
    assert [o.failure for o in guarded_map("hostile_work:hostile", ["a", "fail"], 0, 1.0)] == [None, "error"]


def test_an_item_survives_a_kill_from_outside_but_not_a_second_one(tmp_path: Path) -> None:
    innocent = f"kill {tmp_path / 'mark'}"
    outcomes = list(guarded_map("hostile_work:hostile", ["a", innocent, "kill", "b"], 1, 20.0))
    assert [o.value for o in outcomes] == ["aa", innocent * 2, None, "bb"]
    assert outcomes[2].failure == "crashed"
    assert "-9" in outcomes[2].message


def test_a_worker_killed_between_two_items_costs_nothing() -> None:
    outcomes = guarded_map("hostile_work:hostile", iter(["pid", "pid", "pid", "a", "b", "pid"]), 1, 20.0)
    first = next(outcomes)
    os.kill(int(first.value), 9)
    assert [o.failure for o in outcomes] == [None] * 5


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux limits memory")
def test_too_much_memory_is_a_failure_of_its_own_and_the_next_item_gets_a_fresh_child() -> None:
    items = ["pid", "hog", "pid", "gush", "a"]
    outcomes = list(guarded_map("hostile_work:hostile", items, 1, 20.0, memory_mb=256))
    assert [o.failure for o in outcomes] == [None, "memory", None, "memory", None]
    assert outcomes[0].value != outcomes[2].value
    assert outcomes[4].value == "aa"


def test_giving_up_does_not_wait_for_what_hangs() -> None:
    outcomes = guarded_map("hostile_work:hostile", ["a", "hang", "hang", "hang", "hang"], 1, 60.0)
    assert next(outcomes).value == "aa"
    began = time.monotonic()
    outcomes.close()
    assert time.monotonic() - began < 10


def test_a_worker_that_cannot_start_is_no_endless_wait() -> None:
    outcomes = list(guarded_map("no_such_module:nothing", ["a", "b"], 1, 5.0))
    assert [o.failure for o in outcomes] == ["crashed", "crashed"]
