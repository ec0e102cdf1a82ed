"""The order of training: which samples step s takes, as a function of seed and s alone.

So the place in the data *is* the step number: it is restored exactly, and does not depend on how many processes share
a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class Order:
    """Samples of several sets, mixed by share; each set is walked through epoch after epoch, shuffled as a whole.

    Args:
        sizes: Set name -> number of its samples, each at least 1.
        shares: Set name -> its share of all items; they need not sum to 1.
        batch_size: Items of a step.
        seed: Of all shuffles.
    """

    def __init__(
        self, sizes: Mapping[str, int], shares: Mapping[str, float], batch_size: int, seed: int
    ) -> None:
        self.names = list(sizes)
        self._sizes = [sizes[name] for name in self.names]
        parts = np.asarray([shares[name] for name in self.names], dtype=float)
        self._shares: list[float] = (parts / parts.sum()).tolist()
        self._counts = [[0] * len(self.names)]
        self._batch, self._seed = batch_size, seed
        self._shuffled = lru_cache(maxsize=2 * len(self.names))(self._shuffle)

    def items(self, step: int) -> list[tuple[str, int]]:
        """Returns (set, number of the sample in it) of each item of a step."""
        before, after = self._taken(step), self._taken(step + 1)
        chosen = [
            (name, self._sample(number, index))
            for number, name in enumerate(self.names)
            for index in range(before[number], after[number])
        ]
        mixed = np.random.default_rng((self._seed, step)).permutation(len(chosen))
        return [chosen[number] for number in mixed]

    def _taken(self, step: int) -> list[int]:
        """Returns how many samples of each set all steps before this one take; about one off its share at most."""
        while len(self._counts) <= step:
            taken = list(self._counts[-1])
            for number in range(
                (len(self._counts) - 1) * self._batch + 1, len(self._counts) * self._batch + 1
            ):
                lacks = [share * number - count for share, count in zip(self._shares, taken, strict=True)]
                taken[lacks.index(max(lacks))] += 1
            self._counts.append(taken)
        return self._counts[step]

    def _sample(self, number: int, index: int) -> int:
        epoch, place = divmod(index, self._sizes[number])
        return int(self._shuffled(number, epoch)[place])

    def _shuffle(self, number: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self._seed, number, epoch)).permutation(self._sizes[number])
