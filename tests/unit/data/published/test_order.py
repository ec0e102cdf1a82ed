"""The order of training is a function of seed and step."""

from __future__ import annotations

from collections import Counter

from visavis.data.published.order import Order

SIZES, SHARES = {"rounds": 7, "pair": 5}, {"rounds": 3.0, "pair": 1.0}


def test_any_step_can_be_asked_for_first() -> None:
    walked = Order(SIZES, SHARES, 4, seed=3)
    steps = [walked.items(step) for step in range(40)]
    assert [Order(SIZES, SHARES, 4, seed=3).items(step) for step in reversed(range(40))] == steps[::-1]
    assert all(len(items) == 4 for items in steps)
    assert Order(SIZES, SHARES, 4, seed=4).items(0) != steps[0]


def test_a_set_is_walked_through_whole_before_it_comes_again() -> None:
    order = Order(SIZES, SHARES, 4, seed=0)
    seen: dict[str, list[int]] = {"rounds": [], "pair": []}
    for step in range(28):
        for name, number in sorted(order.items(step)):
            seen[name].append(number)
    for name, numbers in seen.items():
        counts = Counter(numbers)
        assert max(counts.values()) - min(counts[number] for number in range(SIZES[name])) <= 1


def test_sets_keep_their_shares_in_every_stretch() -> None:
    order = Order(SIZES, SHARES, 10, seed=0)
    for step in range(50):
        drawn = [name for name, _ in order.items(step)]
        assert drawn.count("rounds") in (7, 8)
