"""Is the model worse for some people than for others? Figures by what the data set says of a person, and their gaps.

A gap is the largest less the smallest mean of an attribute's slices. It is above 0 for a fair model too, the more the
smaller the slices are: its `chance` says what the same values, dealt out to the people at random, would show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visavis.evaluation.attributes import UNTOLD
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.intervals import Figure, difference_of_means

_DEALS = 200  # random deals of the values behind the chance of a gap


@dataclass(frozen=True)
class Sliced:
    """One measured item and whom it is about.

    Attributes:
        person: Who is asked for.
        cluster: Items that may depend on each other.
        value: What was measured, larger is better.
        attributes: What is said of the person; see `visavis.evaluation.attributes`.
    """

    person: str
    cluster: str
    value: float
    attributes: Mapping[str, str]


def summarise_attributes(
    rows: Sequence[Sliced], figure: Callable[[Sequence[Sliced]], Figure], config: EvaluateConfig
) -> tuple[dict[str, dict[str, Figure]], dict[str, Figure]]:
    """Returns a figure for each slice, by attribute and value, and the gap of each attribute.

    An attribute that is told of nobody is left out.

    Args:
        rows: The items; those of whom nothing is said are left out.
        figure: Sums up the items of one slice.
        config: Fewest items of a slice that counts in a gap, and bootstrap settings.
    """
    described = [row for row in rows if row.attributes]
    slices, gaps = {}, {}
    for attribute in described[0].attributes if described else ():
        values = np.asarray([row.attributes[attribute] for row in described])
        if not np.any(values != UNTOLD):
            continue
        slices[attribute] = {
            str(value): figure([row for row in described if row.attributes[attribute] == value])
            for value in np.unique(values)
        }
        gaps[attribute] = _gap(described, values, config)
    return slices, gaps


def _gap(rows: Sequence[Sliced], values: NDArray[np.str_], config: EvaluateConfig) -> Figure:
    """Returns the gap, with the interval of the difference between the two slices that it lies between."""
    measured = np.asarray([row.value for row in rows])
    means = _means(measured, values, config.min_slice)
    if len(means) < 2:
        return Figure.missing()
    best, worst = max(means, key=lambda value: means[value]), min(means, key=lambda value: means[value])
    either = [index for index, value in enumerate(values) if value in (best, worst)]
    return difference_of_means(
        measured[either],
        values[either] == best,
        clusters=[rows[index].cluster for index in either],
        chance=_chance(rows, measured, values, config),
        samples=config.bootstrap_samples,
        seed=config.seed,
    )


def _chance(
    rows: Sequence[Sliced], measured: NDArray[np.float64], values: NDArray[np.str_], config: EvaluateConfig
) -> float | None:
    """Returns the mean gap when the values are dealt out to the people at random, None if no deal has two slices."""
    _, first, person = np.unique([row.person for row in rows], return_index=True, return_inverse=True)
    rng = np.random.default_rng(config.seed)
    deals = (
        _means(measured, rng.permutation(values[first])[person], config.min_slice) for _ in range(_DEALS)
    )
    found = [max(means.values()) - min(means.values()) for means in deals if len(means) > 1]
    return float(np.mean(found)) if found else None


def _means(measured: NDArray[np.float64], values: NDArray[np.str_], least: int) -> dict[str, float]:
    """Returns the mean of each value that has at least `least` items."""
    names, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    sums = np.bincount(place, weights=measured)
    return {
        str(name): float(total / count)
        for name, total, count in zip(names, sums, counts, strict=True)
        if count >= least
    }
