"""Who is who across clips, and who goes where: nobody is seen in training and again in the test."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from visavis.files import sha256_bytes

_BLOCK_ROWS = 4096
# Smaller groups may overfill a split a little; larger ones are cut.
_LARGE_SHARE = 0.1
SPLITS = ("train", "val", "test")


class Groups:
    """Union-find over the numbers 0 ... count - 1."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, item: int) -> int:
        """Returns the smallest member of the item's group."""
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, one: int, two: int) -> None:
        """Makes two groups one."""
        low, high = sorted((self.root(one), self.root(two)))
        self._parent[high] = low


def identity_clusters(
    embeddings: NDArray[np.floating], threshold: float, apart: Sequence[tuple[int, int]] = ()
) -> list[int]:
    """Groups faces into people: whoever is linked by a chain of cosines above the threshold is one person.

    Args:
        embeddings: Unit vectors [N, d].
        threshold: Least cosine of a link.
        apart: Pairs of faces of one picture, which are two people whatever the cosine says; a direct link
            between them is ignored.

    Returns:
        For each face the number of its cluster, the lowest face number in it.
    """
    groups = Groups(len(embeddings))
    vectors = np.asarray(embeddings, np.float32)
    forbidden = {frozenset(pair) for pair in apart}
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS]
        # Only columns from here on: a link is found from its earlier face.
        for other in range(start, len(vectors), _BLOCK_ROWS):
            cosines = block @ vectors[other : other + _BLOCK_ROWS].T
            for row, column in zip(*np.nonzero(cosines >= threshold), strict=True):
                one, two = start + int(row), other + int(column)
                if one < two and frozenset((one, two)) not in forbidden:
                    groups.join(one, two)
    return [groups.root(index) for index in range(len(vectors))]


def cluster_name(members: Sequence[str]) -> str:
    """Returns a stable name of a person from the faces that show them."""
    return "p" + sha256_bytes("\n".join(sorted(members)).encode())[:12]


def assign_splits(
    items: Mapping[str, Sequence[str]], shares: Mapping[str, float], seed: int
) -> dict[str, str | None]:
    """Distributes items over splits so that no person is in two of them.

    Items that share people, also through others, hang together and stay together. Only where such a group is
    too large for its split to keep its share, it is cut at few items, and those belong to no split.

    Args:
        items: Item -> people in it; items without people are distributed alone.
        shares: Split -> share of the items; they add to 1.
        seed: Seed of the order.

    Returns:
        Item -> split, or None for an item whose people ended up in different splits. The result depends on
        the set of items, not on their order.
    """
    order = sorted(items, key=lambda item: sha256_bytes(f"{seed}\0{item}".encode()))
    wanted = {split: share * len(order) for split, share in shares.items() if share > 0}
    filled: Counter[str] = Counter()
    result: dict[str, str | None] = {}
    waiting = deque(sorted(_components(order, items), key=len, reverse=True))
    while waiting:
        group = waiting.popleft()
        split = max(wanted, key=lambda name: (wanted[name] - filled[name], wanted[name]))
        room = wanted[split] - filled[split]
        if len(wanted) > 1 and len(group) > 1.1 * room + 1 and len(group) >= _LARGE_SHARE * len(order):
            parts, bridges = _cut(group, items, max(1, round(room)))
            if len(parts) > 1:
                result.update(dict.fromkeys(bridges))
                waiting = deque(sorted([*parts, *waiting], key=len, reverse=True))
                continue
        result.update(dict.fromkeys(group, split))
        filled[split] += len(group)
    return result


def _components(order: Sequence[str], items: Mapping[str, Sequence[str]]) -> list[list[str]]:
    groups = Groups(len(order))
    owner: dict[str, int] = {}
    for index, item in enumerate(order):
        for person in items[item]:
            groups.join(owner.setdefault(person, index), index)
    found: dict[int, list[str]] = {}
    for index, item in enumerate(order):
        found.setdefault(groups.root(index), []).append(item)
    return list(found.values())


def _cut(
    group: Sequence[str], items: Mapping[str, Sequence[str]], size: int
) -> tuple[list[list[str]], list[str]]:
    """Cuts a group in two at few items: people are taken in one by one until `size` items are whole.

    Returns:
        The parts that hang together, and the items in between.
    """
    of_person: dict[str, list[str]] = {}
    for item in group:
        for person in items[item]:
            of_person.setdefault(person, []).append(item)
    inside: set[str] = set()
    missing = {item: len(set(items[item])) for item in group}
    border: Counter[str] = Counter({min(of_person, key=lambda person: (len(of_person[person]), person)): 0})
    whole = 0
    while border and whole < size:
        # Whoever completes most items and opens fewest comes next.
        person = min(border, key=lambda p: (len(of_person[p]) - 2 * border[p], p))
        del border[person]
        inside.add(person)
        for item in of_person[person]:
            missing[item] -= 1
            whole += missing[item] == 0
            for other in set(items[item]) - inside:
                border[other] += 1
    bridges = [item for item in group if 0 < len(inside.intersection(items[item])) < len(set(items[item]))]
    rest = [item for item in group if item not in set(bridges)]
    return _components(rest, items), bridges


def closest_across(
    embeddings: NDArray[np.floating], splits: Sequence[str | None]
) -> tuple[float, int, int] | None:
    """Returns the highest cosine between faces of different splits and whose it is: what may have slipped by.

    Args:
        embeddings: Unit vectors [N, d].
        splits: Split of each face; None is left out.
    """
    vectors = np.asarray(embeddings, np.float32)
    best: tuple[float, int, int] | None = None
    for index, name in enumerate(SPLITS):
        own = np.array([i for i, split in enumerate(splits) if split == name], int)
        rest = np.array([i for i, split in enumerate(splits) if split in SPLITS[index + 1 :]], int)
        for start in range(0, len(own) if len(rest) else 0, _BLOCK_ROWS):
            rows = own[start : start + _BLOCK_ROWS]
            cosines = vectors[rows] @ vectors[rest].T
            row, column = np.unravel_index(int(cosines.argmax()), cosines.shape)
            value = float(cosines[row, column])
            if best is None or value > best[0]:
                best = (value, int(rows[row]), int(rest[column]))
    return best
