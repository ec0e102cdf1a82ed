"""95 % intervals: bootstrap and Wilson, both aware that items of one clip or person are not independent."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from visavis.errors import VisavisError

_CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)


@dataclass(frozen=True)
class Figure:
    """One measured number with its uncertainty.

    Attributes:
        value: The estimate, or None if there was nothing to measure.
        ci95: Low and high end of the 95 % interval, or None if it cannot be told (fewer than two independent
            observations).
        n: How many items the estimate rests on.
        chance: What a model that guesses would reach, where that is known.
        clusters: How many independent groups (chats, people) the items form, where they are grouped.
    """

    value: float | None
    ci95: tuple[float, float] | None
    n: int
    chance: float | None = None
    clusters: int | None = None

    def __post_init__(self) -> None:
        numbers = [self.value, self.chance, *(self.ci95 or ())]
        if any(number is not None and not math.isfinite(number) for number in numbers):
            raise VisavisError(
                f"a figure must be finite, not {self.value} with interval {self.ci95}",
                fix="drop or repair the items that yield NaN or infinity before they are averaged",
            )

    @classmethod
    def missing(cls, chance: float | None = None) -> Figure:
        """Returns the figure of something that no item could be measured on."""
        return cls(None, None, 0, chance)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form: value, ci95, n and, where they are known, chance and clusters."""
        row: dict[str, Any] = {
            "value": self.value,
            "ci95": list(self.ci95) if self.ci95 else None,
            "n": self.n,
        }
        if self.chance is not None:
            row["chance"] = self.chance
        if self.clusters is not None:
            row["clusters"] = self.clusters
        return row

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Figure:
        """Returns the figure of a JSON form."""
        ci95 = row.get("ci95")
        return cls(
            row["value"],
            (ci95[0], ci95[1]) if ci95 else None,
            row["n"],
            row.get("chance"),
            row.get("clusters"),
        )


def bootstrap_mean(
    values: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Figure:
    """Returns the mean of `values` with an expanded percentile bootstrap interval.

    Whole clusters are resampled. The percentiles are widened as Hesterberg (2015, "What Teachers Should Know
    About the Bootstrap", section 3.5) proposes, because the plain percentile interval is too narrow for few
    clusters.

    Args:
        values: [n] finite numbers.
        clusters: A label for each value; values with equal labels are resampled together. The order of items
            does not change the result.
        samples: Resamples.
        seed: Seed of the resampling.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        return Figure.missing()
    sums, counts = _cluster_sums(numbers, clusters)
    groups = len(sums)
    mean = float(numbers.mean())
    shown = None if clusters is None else groups
    if groups < 2:
        return Figure(mean, None, numbers.size, clusters=shown)
    weights = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=samples)
    means = (weights @ sums) / (weights @ counts)
    low, high = np.quantile(means, percentiles(groups))
    return Figure(mean, (float(low), float(high)), numbers.size, clusters=shown)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Figure:
    """Returns the mean of `first - second`, item by item, with its bootstrap interval.

    Raises:
        VisavisError: If the two lists are of different lengths.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise VisavisError(
            f"a paired difference needs the same items on both sides, not {a.size} and {b.size}",
            fix="keep the items that both sides have scored",
        )
    return bootstrap_mean(a - b, clusters=clusters, samples=samples, seed=seed)


def difference_of_means(
    values: ArrayLike,
    first: ArrayLike,
    *,
    clusters: Sequence[Hashable],
    chance: float | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Figure:
    """Returns the mean of some values minus that of the others, with a bootstrap interval as in `bootstrap_mean`.

    Resamples that leave one of the two sides empty are drawn for nothing.

    Args:
        values: [n] finite numbers.
        first: [n] whether a value is on the first side; neither side may be empty.
        clusters: A label for each value; a cluster may have values on both sides.
        chance: Passed on.
        samples: Resamples.
        seed: Seed of the resampling.
    """
    numbers, one = np.asarray(values, dtype=np.float64), np.asarray(first, dtype=bool)
    value = float(numbers[one].mean() - numbers[~one].mean())
    sides = [(np.where(side, numbers, 0.0), side.astype(np.float64)) for side in (one, ~one)]
    groups = len(set(map(str, clusters)))
    if groups < 2:
        return Figure(value, None, numbers.size, chance, groups)
    weights = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=samples)
    counts = [weights @ _cluster_sums(counted, clusters)[0] for _, counted in sides]
    filled = np.minimum(*counts) > 0
    if not filled.any():
        return Figure(value, None, numbers.size, chance, groups)
    above, below = (
        (weights @ _cluster_sums(summed, clusters)[0])[filled] / count[filled]
        for (summed, _), count in zip(sides, counts, strict=True)
    )
    low, high = np.quantile(above - below, percentiles(groups))
    return Figure(value, (float(low), float(high)), numbers.size, chance, groups)


def wilson(
    hits: Sequence[bool],
    *,
    clusters: Sequence[Hashable] | None = None,
    chance: float | None = None,
) -> Figure:
    """Returns the share of hits with Wilson's score interval.

    With `clusters`, n is divided by the estimated design effect and the normal quantile gives way to
    Student's (Dean and Pagano 2015, "Evaluating Confidence Interval Methods for Binomial Proportions in
    Clustered Surveys"). The design effect is never taken below 1; where all outcomes are equal it cannot be
    estimated and the worst case (each cluster counts once) is assumed.

    Args:
        hits: [n] outcomes.
        clusters: A label for each outcome; outcomes with equal labels (rounds of one chat) may depend on each
            other.
        chance: What guessing would reach; passed on.
    """
    outcomes = np.asarray(hits, dtype=np.float64)
    n = outcomes.size
    if n == 0:
        return Figure.missing(chance)
    share = float(outcomes.mean())
    sums, counts = _cluster_sums(outcomes, clusters)
    groups = len(sums)
    effective, quantile = float(n), _Z
    if groups < n:
        if groups < 2:
            return Figure(share, (0.0, 1.0), n, chance, groups)
        worst = float((counts**2).sum() / n)
        if 0 < share < 1:
            residuals = sums - share * counts
            variance = groups / (groups - 1) * float((residuals**2).sum()) / n**2
            effect = variance / (share * (1 - share) / n)
        else:
            effect = worst
        effective = n / min(max(effect, 1.0), max(worst, 1.0))
        quantile = _student(groups - 1)
    square = quantile**2 / effective
    centre = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * math.sqrt(share * (1 - share) / effective + square / (4 * effective))
    return Figure(
        share,
        (max(0.0, centre - half), min(1.0, centre + half)),
        n,
        chance,
        None if clusters is None else groups,
    )


def percentiles(groups: int) -> tuple[float, float]:
    """Returns the ends, in 0..1, of a bootstrap interval of 2 or more clusters, widened as in `bootstrap_mean`."""
    tail = NormalDist().cdf(-_student(groups - 1) * math.sqrt(groups / (groups - 1)))
    return tail, 1 - tail


def mean_over_seeds(values: Sequence[float]) -> Figure:
    """Returns the mean of one number per training seed with Student's interval."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        return Figure.missing()
    mean = float(numbers.mean())
    if numbers.size < 2:
        return Figure(mean, None, numbers.size)
    quantile = _student(numbers.size - 1)
    half = quantile * float(numbers.std(ddof=1)) / math.sqrt(numbers.size)
    return Figure(mean, (mean - half, mean + half), numbers.size)


def _student(degrees: int) -> float:
    """Returns the 97.5 % quantile of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + _CONFIDENCE / 2))


def _cluster_sums(numbers: np.ndarray, clusters: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns sum and count of each cluster, in an order that does not depend on that of the items."""
    if clusters is None:
        return np.sort(numbers), np.ones(numbers.size)
    if len(clusters) != numbers.size:
        raise VisavisError(
            f"{len(clusters)} cluster labels for {numbers.size} values",
            fix="give one label for each value",
        )
    _, index = np.unique([str(label) for label in clusters], return_inverse=True)
    sums = np.bincount(index, weights=numbers)
    return sums, np.bincount(index).astype(np.float64)
