from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from visavis.errors import VisavisError
from visavis.evaluation.intervals import (
    Figure,
    bootstrap_mean,
    mean_over_seeds,
    paired_difference,
    wilson,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (1, 7), (57, 80), (240, 240), (131, 200)])
def test_wilson_is_that_of_scipy(hits: int, n: int) -> None:
    figure = wilson([True] * hits + [False] * (n - hits))
    reference = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert figure.value == hits / n
    assert figure.ci95 == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_wilson_gives_the_interval_that_is_known_for_the_papers_user_study() -> None:
    assert wilson([True] * 57 + [False] * 23).ci95 == pytest.approx((0.605, 0.800), abs=5e-4)


def test_wilson_with_singleton_clusters_is_plain_wilson() -> None:
    hits = [True, False, True, True, False]
    assert wilson(hits, clusters=range(5)).ci95 == wilson(hits).ci95


def test_wilson_never_narrows_by_clusters_and_widens_when_rounds_of_a_chat_agree() -> None:
    hits = [index % 10 < 7 for index in range(100)]
    agreeing = sorted(hits)
    plain, paired = wilson(hits), wilson(agreeing, clusters=[i // 2 for i in range(100)])
    opposed = wilson([i % 2 == 0 for i in range(100)], clusters=[i // 2 for i in range(100)])
    assert _width(paired) > 1.3 * _width(plain)
    assert _width(opposed) >= _width(wilson([i % 2 == 0 for i in range(100)]))
    assert paired.n == 100
    assert paired.clusters == 50


def test_wilson_assumes_the_worst_where_all_outcomes_are_equal() -> None:
    clustered = wilson([True] * 40, clusters=[i // 2 for i in range(40)])
    assert clustered.ci95[0] < wilson([True] * 40).ci95[0]
    assert clustered.ci95[0] == pytest.approx(wilson([True] * 20).ci95[0], abs=0.02)


def test_one_cluster_says_nothing() -> None:
    assert wilson([True, True, True], clusters=["a"] * 3).ci95 == (0.0, 1.0)
    assert bootstrap_mean([1.0, 2.0], clusters=["a", "a"]).ci95 is None
    assert bootstrap_mean([1.0]).ci95 is None


def test_wilson_covers_the_truth_when_rounds_come_in_pairs() -> None:
    rng = np.random.default_rng(0)
    covered = plain_covered = 0
    for _ in range(400):
        # both rounds of a chat share the chat's own probability: strongly dependent outcomes
        chance = rng.beta(0.6, 0.4, size=60).repeat(2)
        hits = list(rng.random(120) < chance)
        low, high = wilson(hits, clusters=[i // 2 for i in range(120)]).ci95
        covered += low <= 0.6 <= high
        low, high = wilson(hits).ci95
        plain_covered += low <= 0.6 <= high
    assert 0.93 <= covered / 400 <= 0.985
    assert plain_covered < covered


@pytest.mark.parametrize("groups", [6, 12, 40])
def test_bootstrap_covers_the_truth(groups: int) -> None:
    rng = np.random.default_rng(groups)
    covered = 0
    for trial in range(300):
        person = rng.normal(0.3, 0.1, groups)
        values = person.repeat(3) + rng.normal(0, 0.1, 3 * groups)
        low, high = bootstrap_mean(values, clusters=np.arange(groups).repeat(3), samples=500, seed=trial).ci95
        covered += low <= 0.3 <= high
    assert 0.91 <= covered / 300 <= 0.985


def test_bootstrap_agrees_with_scipy_on_many_independent_values() -> None:
    values = np.random.default_rng(1).gamma(2, size=300)
    ours = bootstrap_mean(values, samples=9999)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.ci95 == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_the_order_of_items_and_the_names_of_clusters_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    values, labels = rng.normal(size=30), [f"p{i // 3:02d}" for i in range(30)]
    order = rng.permutation(30)
    first = bootstrap_mean(values, clusters=labels)
    again = bootstrap_mean(values[order], clusters=[labels[i] for i in order])
    assert first.ci95 == pytest.approx(again.ci95)
    assert wilson(list(values > 0), clusters=labels) == wilson(
        list(values[order] > 0), clusters=[labels[i] for i in order]
    )
    assert bootstrap_mean(values).ci95 == pytest.approx(bootstrap_mean(values[order]).ci95)


def test_pairing_takes_out_what_items_share() -> None:
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 1, 80)
    first, second = hard + 0.1 + rng.normal(0, 0.05, 80), hard + rng.normal(0, 0.05, 80)
    figure = paired_difference(first, second)
    assert figure.ci95[0] > 0
    assert _width(figure) < 0.2 * _width(bootstrap_mean(first))
    with pytest.raises(VisavisError, match="same items"):
        paired_difference(first, second[:-1])


def test_mean_over_seeds_is_students_interval() -> None:
    values = [0.55, 0.61, 0.58]
    reference = stats.ttest_1samp(values, 0).confidence_interval()
    assert mean_over_seeds(values).ci95 == pytest.approx((reference.low, reference.high))
    assert mean_over_seeds([0.5]).ci95 is None


def test_figures_are_json_and_never_nan() -> None:
    figure = Figure(0.5, (0.4, 0.6), 10, chance=0.5, clusters=5)
    assert Figure.from_dict(figure.to_dict()) == figure
    assert Figure(1.0, None, 1).to_dict() == {"value": 1.0, "ci95": None, "n": 1}
    assert Figure.missing().to_dict() == {"value": None, "ci95": None, "n": 0}
    for bad in (math.nan, math.inf):
        with pytest.raises(VisavisError, match="finite"):
            Figure(bad, None, 1)


def test_labels_must_match_values() -> None:
    with pytest.raises(VisavisError, match="2 cluster labels for 3 values"):
        bootstrap_mean([1.0, 2.0, 3.0], clusters=["a", "b"])


def _width(figure: Figure) -> float:
    assert figure.ci95 is not None
    return figure.ci95[1] - figure.ci95[0]
