from visavis.data.guard import guarded_map


def test_one_bad_item_costs_only_itself() -> None:
    items = ["a", "hang", "b", "crash", "c", "fail", "d"]
    outcomes = list(guarded_map("hostile_work:hostile", items, workers=2, timeout_s=3.0))
    assert [o.value for o in outcomes] == ["aa", None, "bb", None, "cc", None, "dd"]
    assert [o.failure for o in outcomes] == [None, "timeout", None, "crashed", None, "error", None]
    assert "ValueError" in outcomes[5].message


def test_without_workers_failures_are_still_caught() -> None:
    assert [o.failure for o in guarded_map("hostile_work:hostile", ["a", "fail"], 0, 1.0)] == [None, "error"]
