import itertools

import numpy as np
import pytest

from visavis.data.split import assign_splits, closest_across, identity_clusters

SHARES = {"train": 0.7, "val": 0.08, "test": 0.22}


def leaks(items: dict[str, list[str]], splits: dict[str, str | None]) -> set[str]:
    homes: dict[str, set[str]] = {}
    for item, people in items.items():
        if (split := splits[item]) is not None:
            for person in people:
                homes.setdefault(person, set()).add(split)
    return {person for person, found in homes.items() if len(found) > 1}


def shares_of(splits: dict[str, str | None]) -> dict[str, float]:
    values = list(splits.values())
    return {name: values.count(name) / len(values) for name in SHARES}


def world(rng: np.random.Generator, kind: str, count: int) -> dict[str, list[str]]:
    if kind == "strangers":
        return {f"c{i}": [f"p{2 * i}", f"p{2 * i + 1}"] for i in range(count)}
    if kind == "circles":
        return {f"c{i}": [f"p{i // 4}-{a}" for a in rng.choice(6, 2, replace=False)] for i in range(count)}
    if kind == "random":  # one giant component
        return {f"c{i}": [f"p{a}" for a in rng.choice(count, 2, replace=False)] for i in range(count)}
    if kind == "host":  # one person is in every clip
        return {f"c{i}": ["host", f"guest{i}"] for i in range(count)}
    return {f"c{i}": [f"p{i}", f"p{i + 1}"] for i in range(count)}  # chain


@pytest.mark.parametrize("kind", ["strangers", "circles", "random", "host", "chain"])
@pytest.mark.parametrize("count", [1, 3, 20, 400])
def test_nobody_is_in_two_splits(kind: str, count: int) -> None:
    items = world(np.random.default_rng(count), kind, max(count, 3) if kind == "random" else count)
    splits = assign_splits(items, SHARES, seed=1)
    assert set(splits) == set(items)
    assert not leaks(items, splits)


@pytest.mark.parametrize(
    ("kind", "lost"), [("strangers", 0), ("circles", 0), ("chain", 0.03), ("random", 0.35)]
)
def test_shares_hold_and_little_is_lost(kind: str, lost: float) -> None:
    items = world(np.random.default_rng(5), kind, 600)
    splits = assign_splits(items, SHARES, seed=0)
    assert list(splits.values()).count(None) / len(splits) <= lost
    for name, share in shares_of(splits).items():
        assert share == pytest.approx(SHARES[name], abs=0.04 + lost / 2)


def test_somebody_who_is_everywhere_keeps_everything_in_training() -> None:
    splits = assign_splits(world(np.random.default_rng(0), "host", 100), SHARES, seed=0)
    assert set(splits.values()) <= {"train", None}
    assert list(splits.values()).count("train") >= 50


def test_the_split_does_not_depend_on_the_order_of_the_items() -> None:
    items = world(np.random.default_rng(3), "random", 200)
    backwards = dict(reversed(items.items()))
    assert assign_splits(items, SHARES, seed=4) == assign_splits(backwards, SHARES, seed=4)


def test_faces_are_linked_across_clips_but_never_directly_within_one() -> None:
    rng = np.random.default_rng(0)
    people = rng.normal(size=(5, 64))
    faces = np.concatenate([people, people + 0.3 * rng.normal(size=people.shape)])
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    assert identity_clusters(faces, 0.6) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert identity_clusters(faces, 0.6, apart=[(0, 5)])[5] == 5
    assert identity_clusters(faces[:0].reshape(0, 64), 0.6) == []


def test_closest_across_is_the_highest_cosine_between_splits() -> None:
    rng = np.random.default_rng(1)
    faces = rng.normal(size=(40, 8))
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    splits = ["train", "val", "test", None] * 10
    value, one, two = closest_across(faces, splits) or (0.0, 0, 0)
    expected = max(
        float(faces[i] @ faces[j])
        for i, j in itertools.combinations(range(40), 2)
        if splits[i] and splits[j] and splits[i] != splits[j]
    )
    assert value == pytest.approx(expected, abs=1e-5)
    assert float(faces[one] @ faces[two]) == pytest.approx(expected, abs=1e-5)
    assert closest_across(faces[:1], ["train"]) is None
