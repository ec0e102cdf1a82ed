from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from visavis.errors import VisavisError
from visavis.evaluation.intervals import bootstrap_mean, wilson
from visavis.study.figures import summary_of_counts
from visavis.study.statistics import (
    Counts,
    bradley_terry,
    krippendorff_alpha,
    net_win,
    parse_counts,
    sign_test,
    table_from_counts,
)

PAPER = "quality=59/3/18,alignment=29/12/39,identity=57/2/21"


def test_the_paper_s_table_comes_out_as_printed() -> None:
    assert table_from_counts(parse_counts(PAPER)) == [
        ("Quality", "73.75%", "3.75%", "22.5%"),
        ("Alignment", "36.25%", "15%", "48.75%"),
        ("Face ID", "71.25%", "2.5%", "26.25%"),
    ]


def test_shares_have_two_decimals_at_most() -> None:
    rows = table_from_counts({"taste": Counts(1, 2, 0), "quality": Counts(0, 0, 0), "x": Counts(0, 200, 0)})
    assert rows == [
        ("taste", "33.33%", "66.67%", "0%"),
        ("Quality", "–", "–", "–"),
        ("x", "0%", "100%", "0%"),
    ]


@pytest.mark.parametrize(
    "text",
    ["", "quality", "quality=1/2", "quality=1/2/-3", "quality=a/b/c", "=1/2/3", "a=0/0/0", "a=1/1/1,a=1/1/1"],
)
def test_wrong_counts_are_explained(text: str) -> None:
    with pytest.raises(VisavisError, match="counts"):
        parse_counts(text)


def test_figures_of_the_paper_s_counts() -> None:
    people = summary_of_counts(parse_counts(PAPER)).people
    quality, alignment = people["quality"], people["alignment"]
    for share, count in ((quality.win, 59), (quality.lose, 3), (quality.tie, 18)):
        theirs = binomtest(count, 80).proportion_ci(method="wilson")
        assert share.value == count / 80
        assert share.ci95 == pytest.approx((theirs.low, theirs.high))
    assert alignment.p_value == pytest.approx(0.0115, abs=5e-5)
    assert quality.net.value == pytest.approx(0.7)
    low, high = quality.net.ci95 or (0, 0)
    # The normal interval of a mean of 80 values.
    half = 1.96 * math.sqrt((62 / 80 - 0.7**2) / 80)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.02)
    assert alignment.net.ci95 is not None and alignment.net.ci95[0] > 0
    assert quality.agreement is None and not quality.ratings


def test_the_sign_test_leaves_ties_out() -> None:
    assert sign_test(Counts(8, 1, 500)) == pytest.approx(2 * (9 + 1) / 2**9)
    assert sign_test(Counts(0, 0, 5)) is None


def test_without_raters_the_net_win_is_that_of_the_clustered_mean() -> None:
    outcomes, items = ["win", "win", "lose", "tie", "win", "win"], list("aabbcc")
    assert net_win(outcomes, items) == bootstrap_mean([1, 1, -1, 0, 1, 1], clusters=items)
    assert net_win(outcomes, items, ["x"] * 6) == net_win(outcomes, items)
    assert net_win([]).value is None


def test_the_net_win_s_interval_holds_with_raters_of_different_taste() -> None:
    """In simulated studies it covers the truth; drawing items alone does not."""
    generator = np.random.default_rng(0)
    raters, items, truth = 10, 20, 0.0
    labels = [str(i) for _ in range(raters) for i in range(items)]
    voters = [str(r) for r in range(raters) for _ in range(items)]
    covered = np.zeros(2)
    studies = 150
    for _ in range(studies):
        taste, ease = generator.normal(0, 1.2, (raters, 1)), generator.normal(0, 0.8, (1, items))
        leaning = taste + ease + generator.normal(0, 1, (raters, items))
        outcomes = np.where(leaning > 0.3, "win", np.where(leaning < -0.3, "lose", "tie")).ravel().tolist()
        for place, who in enumerate((voters, None)):
            low, high = net_win(outcomes, labels, who, samples=500).ci95 or (0, 0)
            covered[place] += low <= truth <= high
    both, alone = covered / studies
    assert both > 0.9
    assert alone < 0.8


def test_two_systems_have_the_rating_of_their_odds() -> None:
    votes = [("a", "b", "win")] * 29 + [("a", "b", "lose")] * 12 + [("b", "a", "tie")] * 39
    ratings = bradley_terry(votes)
    odds = (29 + 39 / 2) / (12 + 39 / 2)
    assert ratings["a"] - ratings["b"] == pytest.approx(400 * math.log10(odds), abs=0.01)
    assert ratings["a"] + ratings["b"] == pytest.approx(2000)


def test_ratings_are_those_that_made_the_votes() -> None:
    """With as many wins as each pair's odds ask for, the likelihood is largest at the true strengths."""
    strength = {"a": 4.0, "b": 2.0, "c": 1.0, "d": 3.0}
    votes = []
    for first, second in ("ab", "bc", "cd", "da", "ac"):
        total = round(840 * (strength[first] + strength[second]))
        wins = round(total * strength[first] / (strength[first] + strength[second]))
        votes += [(first, second, "win")] * wins + [(first, second, "lose")] * (total - wins)
    ratings = bradley_terry(votes)
    for first in strength:
        for second in strength:
            gap = 400 * math.log10(strength[first] / strength[second])
            assert ratings[first] - ratings[second] == pytest.approx(gap, abs=0.01)


def test_ratings_are_the_fixed_point_of_the_classic_algorithm() -> None:
    """Hunter 2004, "MM algorithms for generalized Bradley-Terry models": wins over expected meetings."""
    generator = np.random.default_rng(1)
    names = "abcde"
    votes = []
    for _ in range(400):
        first, second = generator.choice(5, 2, replace=False)
        outcome = generator.choice(["win", "lose", "tie"], p=[0.5, 0.3, 0.2])
        votes.append((names[first], names[second], str(outcome)))
    won, met = np.zeros(5), np.zeros((5, 5))
    for first, second, outcome in votes:
        i, j = names.index(first), names.index(second)
        share = {"win": 1.0, "lose": 0.0, "tie": 0.5}[outcome]
        won[i] += share
        won[j] += 1 - share
        met[i, j] += 1
        met[j, i] += 1
    strength = np.ones(5)
    for _ in range(2000):
        strength = won / (met / (strength[:, None] + strength[None, :])).sum(1)
        strength /= np.exp(np.log(strength).mean())
    theirs = 1000 + 400 * np.log10(strength)
    ours = bradley_terry(votes)
    assert [ours[name] for name in names] == pytest.approx(theirs.tolist(), abs=0.01)


@pytest.mark.parametrize(
    "votes",
    [
        [("a", "b", "win")] * 5,
        [("a", "b", "tie"), ("c", "d", "tie")],
        [("a", "b", "tie"), ("a", "c", "win"), ("b", "c", "win")],
    ],
)
def test_no_finite_rating_is_said(votes: list[tuple[str, str, str]]) -> None:
    with pytest.raises(VisavisError, match="no ratings fit"):
        bradley_terry(votes)


def by_unit(observers: tuple[str, ...]) -> list[list[str]]:
    """Turns what each observer said into what was said of each thing; a dot is nothing."""
    return [[label for label in unit if label != "."] for unit in zip(*observers, strict=True)]


def test_alpha_is_that_of_krippendorff_s_examples() -> None:
    """From "Computing Krippendorff's Alpha-Reliability": two, four and three observers."""
    a, b = "0100000000", "1110010010"  # 10 zeros agree, 2 ones, 4 are mixed
    assert krippendorff_alpha(list(zip(a, b, strict=True))) == pytest.approx(0.095, abs=5e-4)
    four = "123321412...", "1233224125.3", ".3332342251.", "12332441251."
    assert krippendorff_alpha(by_unit(four)) == pytest.approx(0.743, abs=5e-4)
    three = ".....34121133.3", "1.213343.......", "..21344.21133.4"
    assert krippendorff_alpha(by_unit(three)) == pytest.approx(0.691, abs=5e-4)


def test_alpha_at_its_ends() -> None:
    assert krippendorff_alpha(["aa", "bb", "ccc"]) == 1
    assert krippendorff_alpha(["ab", "ab"]) == pytest.approx(1 - 1 / (2 * 2 * 2 / (4 * 3)))
    assert krippendorff_alpha(["aa", "aa"]) is None, "one label only"
    assert krippendorff_alpha(["a", "b"]) is None, "nothing was labelled twice"
    generator = np.random.default_rng(0)
    by_chance = [generator.choice(list("abc"), 4).tolist() for _ in range(2000)]
    assert krippendorff_alpha(by_chance) == pytest.approx(0, abs=0.03)


def test_intervals_are_those_of_the_house() -> None:
    people = summary_of_counts({"quality": Counts(7, 2, 1)}).people
    assert people["quality"].win == wilson([True] * 7 + [False] * 3)
