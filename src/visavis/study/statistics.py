"""What votes say: shares with intervals, a sign test, the net win, Bradley-Terry ratings, agreement of raters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit
from scipy.stats import binomtest

from visavis.errors import VisavisError
from visavis.evaluation.intervals import Figure, bootstrap_mean
from visavis.study.questions import QUESTIONS

SCORES = {"win": 1.0, "lose": -1.0, "tie": 0.0}
TABLE_HEAD = ("Measurement", "Ours wins", "Loses", "Tie")
_RATING_SCALE, _RATING_CENTRE = 400.0 / math.log(10), 1000.0


@dataclass(frozen=True)
class Counts:
    """How often system A won, lost, and neither."""

    win: int
    lose: int
    tie: int

    @property
    def total(self) -> int:
        """Votes in all."""
        return self.win + self.lose + self.tie

    @classmethod
    def of(cls, outcomes: Iterable[str]) -> Counts:
        """Counts outcomes, each `win`, `lose` or `tie`."""
        found = Counter(outcomes)
        return cls(found["win"], found["lose"], found["tie"])

    def outcomes(self) -> list[str]:
        """Returns the outcomes one by one: wins, losses, ties."""
        return ["win"] * self.win + ["lose"] * self.lose + ["tie"] * self.tie


def parse_counts(text: str) -> dict[str, Counts]:
    """Reads counts such as `quality=59/3/18,identity=57/2/21`: win, lose and tie of each question.

    Raises:
        VisavisError: If the text has another form, or a question is named twice or has no votes.
    """
    found: dict[str, Counts] = {}
    for part in text.split(","):
        name, _, numbers = part.strip().partition("=")
        fields = numbers.split("/")
        if not name or len(fields) != 3 or not all(field.strip().isdecimal() for field in fields):
            raise VisavisError(
                f"counts hold {part.strip()!r}", fix="write QUESTION=WIN/LOSE/TIE, such as quality=59/3/18"
            )
        counts = Counts(*(int(field) for field in fields))
        if name in found or not counts.total:
            words = "is named twice" if name in found else "has no votes"
            raise VisavisError(f"counts: {name} {words}", fix="give each question once, with its votes")
        found[name] = counts
    return found


def table_from_counts(counts: Mapping[str, Counts]) -> list[tuple[str, str, str, str]]:
    """Returns the rows of the paper's Table 1: question, then the shares of wins, losses and ties.

    Args:
        counts: By question. A question without votes shows dashes.
    """
    rows = []
    for name, row in counts.items():
        label = QUESTIONS[name].label if name in QUESTIONS else name
        win, lose, tie = (_percent(part, row.total) for part in (row.win, row.lose, row.tie))
        rows.append((label, win, lose, tie))
    return rows


def _percent(part: int, total: int) -> str:
    """Returns a share with at most two decimals and none that are not needed, as the paper prints them."""
    if not total:
        return "–"
    hundredths = math.floor(Fraction(10_000 * part, total) + Fraction(1, 2))
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".") + "%"


def sign_test(counts: Counts) -> float | None:
    """Returns the two-sided p of "wins and losses are equally likely"; ties say nothing. None: only ties."""
    decided = counts.win + counts.lose
    return float(binomtest(counts.win, decided, 0.5).pvalue) if decided else None


def net_win(
    outcomes: Sequence[str],
    items: Sequence[Hashable] | None = None,
    raters: Sequence[Hashable] | None = None,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> Figure:
    """Returns wins minus losses, as a share of all votes (-1 to 1), with its 95 % bootstrap interval.

    Votes on one item are alike, and so are votes of one rater. With more than one of each, both are drawn anew and
    a vote counts as often as its item times its rater (Owen 2007, "The pigeonhole bootstrap"), which errs on the
    wide side; else items are drawn, else votes.

    Args:
        outcomes: [n] of `win`, `lose`, `tie`.
        items: [n] what was voted on.
        raters: [n] who voted.
        samples: Resamples.
        seed: Seed of the resampling.
    """
    scores = np.array([SCORES[outcome] for outcome in outcomes], dtype=np.float64)
    if items is None or raters is None or len(set(items)) < 2 or len(set(raters)) < 2:
        return bootstrap_mean(scores, clusters=items, samples=samples, seed=seed)
    item, item_count = _numbered(items)
    rater, rater_count = _numbered(raters)
    sums, counts = np.zeros((2, rater_count, item_count))
    np.add.at(sums, (rater, item), scores)
    np.add.at(counts, (rater, item), 1.0)
    generator = np.random.default_rng(seed)
    of_rater, of_item = (
        generator.multinomial(size, np.full(size, 1 / size), size=samples).astype(np.float64)
        for size in (rater_count, item_count)
    )
    drawn = ((of_rater @ counts) * of_item).sum(1)
    means = ((of_rater @ sums) * of_item).sum(1)[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(means, [0.025, 0.975])
    return Figure(float(scores.mean()), (float(low), float(high)), scores.size, clusters=item_count)


def bradley_terry(comparisons: Iterable[tuple[str, str, str]]) -> dict[str, float]:
    """Returns a rating for each system: 400 points more are odds of ten to one; the mean is 1000.

    Maximum likelihood, a tie counting half a win for each (as FastChat's `rating_systems.py`).

    Args:
        comparisons: First system, second system, `win`, `lose` or `tie` of the first.

    Raises:
        VisavisError: If some systems never lost to the others, even half: then no finite rating fits.
    """
    won: Counter[tuple[str, str]] = Counter()
    for first, second, outcome in comparisons:
        share = {"win": 2, "lose": 0, "tie": 1}[outcome]  # in halves, to stay with whole numbers
        won[first, second] += share
        won[second, first] += 2 - share
    names = sorted({name for pair in won for name in pair})
    place = {name: number for number, name in enumerate(names)}
    pairs = [(place[a], place[b], halves / 2) for (a, b), halves in sorted(won.items()) if halves]
    winner, loser, weight = (np.array(column) for column in zip(*pairs, strict=True))
    graph = csr_matrix((weight, (winner, loser)), shape=(len(names), len(names)))
    if connected_components(graph, directed=True, connection="strong")[0] > 1:
        raise VisavisError(
            f"no ratings fit the votes on {', '.join(names)}: some won always, or were never compared",
            fix="collect more votes, on pairs that link all systems",
        )

    def loss(ratings: np.ndarray) -> tuple[float, np.ndarray]:
        ahead = ratings[winner] - ratings[loser]
        gradient = np.zeros(len(names))
        pull = weight * expit(-ahead)
        np.subtract.at(gradient, winner, pull)
        np.add.at(gradient, loser, pull)
        return -float(weight @ log_expit(ahead)) / weight.sum(), gradient / weight.sum()

    start = np.zeros(len(names))
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-15}).x
    fitted = fitted - fitted.mean()
    return {name: float(_RATING_CENTRE + _RATING_SCALE * fitted[place[name]]) for name in names}


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Returns how far raters agree beyond chance, for labels without an order.

    1: fully; 0: as by chance; below 0: they contradict each other. Krippendorff, "Computing Krippendorff's
    Alpha-Reliability" (2011).

    Args:
        units: The labels that each thing was given, one for each rater who said something; things with fewer than
            two labels say nothing.

    Returns:
        None if nothing was labelled twice, or only one label was ever given.
    """
    observed, totals = 0.0, Counter[Hashable]()
    for labels in units:
        if len(labels) < 2:
            continue
        found = Counter(labels)
        totals.update(found)
        unequal = len(labels) ** 2 - sum(count**2 for count in found.values())
        observed += unequal / (len(labels) - 1)
    n = sum(totals.values())
    expected = n**2 - sum(count**2 for count in totals.values())
    return 1 - observed * (n - 1) / expected if expected else None


def _numbered(labels: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """Returns the number of each label, in the order of the labels' texts, and how many there are."""
    found, numbers = np.unique([str(label) for label in labels], return_inverse=True)
    return numbers, len(found)
