"""The figures of a study, of people and of each judge, for tables, gates and trackers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from visavis.errors import VisavisError
from visavis.evaluation.intervals import Figure, wilson
from visavis.study.plan import Plan
from visavis.study.questions import QUESTIONS, TIE
from visavis.study.statistics import Counts, bradley_terry, krippendorff_alpha, net_win, sign_test
from visavis.study.votes import JUDGE_PREFIX, LOSE, WIN, Vote, excluded

_SWAPPED = {WIN: LOSE, LOSE: WIN, TIE: TIE}


@dataclass(frozen=True)
class Standing:
    """What the votes on one question say of the system whose wins are counted.

    Attributes:
        counts: Wins, losses, ties.
        win: Share of wins with Wilson's interval, widened where the votes on one item are alike.
        lose: The same of losses.
        tie: The same of ties.
        net: Wins minus losses as a share of all votes.
        p_value: Of the sign test; None if nobody preferred either.
        agreement: Krippendorff's alpha of the raters; None if it cannot be told.
        ratings: Bradley-Terry rating of each system; empty if none fits.
    """

    counts: Counts
    win: Figure
    lose: Figure
    tie: Figure
    net: Figure
    p_value: float | None
    agreement: float | None = None
    ratings: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form, in which a gate finds `net_win.low` and the like; what is not known is left out."""
        shares = {"net_win": self.net, "win": self.win, "lose": self.lose, "tie": self.tie}
        row: dict[str, Any] = {name: figure.to_dict() for name, figure in shares.items()}
        row["votes"] = self.counts.total
        for name, value in (("p_value", self.p_value), ("agreement", self.agreement)):
            if value is not None:
                row[name] = value
        if self.ratings:
            row["rating"] = dict(self.ratings)
        return row


@dataclass(frozen=True)
class Summary:
    """A study's figures.

    Attributes:
        system: The system whose wins are counted.
        people: Standing by question, of people.
        judges: The same of each judge, by its name; of those that passed their attention checks.
        with_people: By judge and question, Krippendorff's alpha of the judge and the people's majority.
        raters: How many people's votes are counted.
        excluded: How many people failed too many attention checks.
        excluded_judges: Judges that did.
        wanted: Votes by question that the study asks for.
    """

    system: str
    people: Mapping[str, Standing]
    judges: Mapping[str, Mapping[str, Standing]] = field(default_factory=dict)
    with_people: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    raters: int = 0
    excluded: int = 0
    excluded_judges: tuple[str, ...] = ()
    wanted: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form; `visavis.evaluation.number_at` finds each key of `metrics` in it."""
        study: dict[str, Any] = {name: standing.to_dict() for name, standing in self.people.items()}
        if self.raters or self.excluded:
            study |= {"raters": self.raters, "excluded_raters": self.excluded}
        judges = {}
        for judge, standings in self.judges.items():
            judges[judge] = {name: standing.to_dict() for name, standing in standings.items()}
            for name, alpha in self.with_people.get(judge, {}).items():
                judges[judge][name]["agreement_with_people"] = alpha
        return {"study": study | ({"judge": judges} if judges else {}), "system": self.system}

    def metrics(self) -> dict[str, float]:
        """Returns all numbers flat: `study.quality.net_win`, `study.quality.net_win.low`, `study.raters`, ..."""
        return dict(_flat("study", self.to_dict()["study"]))


def summarise(plan: Plan, votes: Sequence[Vote]) -> Summary:
    """Counts the votes of a study; those of raters who failed too many attention checks do not count."""
    out = excluded(votes, plan.settings.allowed_failures)
    counted = [vote for vote in votes if not vote.is_check and vote.rater not in out]
    people = [vote for vote in counted if not vote.by_judge]
    names = sorted({vote.rater for vote in counted if vote.by_judge})
    of_judge = {
        name.removeprefix(JUDGE_PREFIX): [vote for vote in counted if vote.rater == name] for name in names
    }
    bad_people = {rater for rater in out if not rater.startswith(JUDGE_PREFIX)}
    wanted = {
        name: plan.settings.votes_per_item * sum(name in item.questions for item in plan.items)
        for name in QUESTIONS
    }
    return Summary(
        plan.system,
        _standings(plan, people),
        {name: _standings(plan, own) for name, own in of_judge.items()},
        {name: _with_people(own, people) for name, own in of_judge.items()},
        raters=len({vote.rater for vote in people}),
        excluded=len(bad_people),
        excluded_judges=tuple(sorted(rater.removeprefix(JUDGE_PREFIX) for rater in out - bad_people)),
        wanted={name: count for name, count in wanted.items() if count},
    )


def summary_of_counts(counts: Mapping[str, Counts], system: str = "ours") -> Summary:
    """Returns the figures that counts alone allow: every vote is taken for independent of the others."""
    return Summary(system, {name: _standing(row.outcomes()) for name, row in counts.items()})


def _standings(plan: Plan, votes: Sequence[Vote]) -> dict[str, Standing]:
    items = plan.by_id()
    found: dict[str, Standing] = {}
    for name in QUESTIONS:
        own = [vote for vote in votes if vote.question == name]
        ratings = _ratings((items[v.item].system_a, items[v.item].system_b, v.outcome) for v in own)
        agreement = krippendorff_alpha(_by_item(own).values())
        ours = [vote for vote in own if plan.system in (items[vote.item].system_a, items[vote.item].system_b)]
        if ours:
            outcomes = [
                vote.outcome if items[vote.item].system_a == plan.system else _SWAPPED[vote.outcome]
                for vote in ours
            ]
            labels = [vote.item for vote in ours], [vote.rater for vote in ours]
            found[name] = _standing(outcomes, *labels, agreement=agreement, ratings=ratings)
    return found


def _standing(
    outcomes: list[str],
    items: Sequence[str] | None = None,
    raters: Sequence[str] | None = None,
    **more: Any,
) -> Standing:
    counts = Counts.of(outcomes)
    win, lose, tie = (
        wilson([outcome == name for outcome in outcomes], clusters=items) for name in (WIN, LOSE, TIE)
    )
    return Standing(counts, win, lose, tie, net_win(outcomes, items, raters), sign_test(counts), **more)


def _ratings(comparisons: Iterable[tuple[str, str, str]]) -> dict[str, float]:
    rows = list(comparisons)
    try:
        return bradley_terry(rows) if rows else {}
    except VisavisError:  # one side always won; the other figures say so
        return {}


def _by_item(votes: Iterable[Vote]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for vote in votes:
        found.setdefault(vote.item, []).append(vote.outcome)
    return found


def _with_people(judge: Sequence[Vote], people: Sequence[Vote]) -> dict[str, float]:
    """Returns the agreement of a judge with the majority of people, by question; no majority is a tie."""
    found: dict[str, float] = {}
    for name in QUESTIONS:
        theirs = _by_item(vote for vote in people if vote.question == name)
        units = [
            (vote.outcome, _majority(theirs[vote.item]))
            for vote in judge
            if vote.question == name and vote.item in theirs
        ]
        alpha = krippendorff_alpha(units)
        if alpha is not None:
            found[name] = alpha
    return found


def _majority(outcomes: Sequence[str]) -> str:
    counts = Counts.of(outcomes)
    if counts.win == counts.lose:
        return TIE
    most, name = max((counts.win, WIN), (counts.lose, LOSE))
    return name if most > counts.tie else TIE


def _flat(path: str, node: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in node.items():
        here = f"{path}.{name}"
        if not isinstance(value, Mapping):
            yield here, float(value)
        elif {"value", "ci95"} <= value.keys():
            if value["value"] is not None:
                yield here, value["value"]
            if value["ci95"] is not None:
                yield f"{here}.low", value["ci95"][0]
                yield f"{here}.high", value["ci95"][1]
        else:
            yield from _flat(here, value)
