"""The gate: rules over a scorecard, and a decision that names what failed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from visavis.errors import VisavisError
from visavis.evaluation.intervals import Figure
from visavis.evaluation.scorecard import number_at
from visavis.registry.config import GateConfig, GateRule


class RuleResult(BaseModel):
    """What became of one rule.

    Attributes:
        metric: Path of the figure.
        passed: Whether the rule holds.
        reason: Why it does not hold, or what it was compared with.
        value: The candidate's figure; None if it was not measured.
        champion: The champion's figure; None if there is no champion or it was not measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    passed: bool
    reason: str
    value: float | None = None
    champion: float | None = None


class Decision(BaseModel):
    """Whether a model may become a challenger, rule by rule.

    Attributes:
        passed: Whether all rules hold.
        rules: What became of each.
        champion: Number of the version that it was compared with; None if there was none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    passed: bool
    rules: tuple[RuleResult, ...]
    champion: str | None = None

    @property
    def failed(self) -> tuple[str, ...]:
        """Metrics of the rules that do not hold."""
        return tuple(rule.metric for rule in self.rules if not rule.passed)

    def words(self) -> str:
        """Returns the decision as one line per rule, failures first."""
        ordered = sorted(self.rules, key=lambda rule: rule.passed)
        lines = [f"{'pass' if rule.passed else 'FAIL'}  {rule.metric}: {rule.reason}" for rule in ordered]
        return "\n".join(lines or ["pass  no rules"])


@dataclass(frozen=True)
class Rival:
    """The champion, on the same items as the candidate.

    Attributes:
        scorecard: Its scorecard in JSON form.
        differences: Candidate minus champion by path, paired by item (`visavis.evaluation.compare`).
        version: Its number in the registry; empty if unknown.
    """

    scorecard: Mapping[str, Any]
    differences: Mapping[str, Figure]
    version: str = ""


@dataclass(frozen=True)
class _Bound:
    name: str
    value: float | None
    worst: float | None
    """What is to be on the good side of the value: the candidate's figure, or an end of an interval."""
    strict: bool = False


def decide(scorecard: Mapping[str, Any], champion: Rival | None, config: GateConfig) -> Decision:
    """Judges a candidate. What was not measured, or is not a finite number, fails.

    Args:
        scorecard: Scorecard of the candidate, in its JSON form.
        champion: The champion on the same data, or None if there is no champion.
        config: The rules.
    """
    results = tuple(_judged(rule, scorecard, champion) for rule in config.rules)
    version = champion.version if champion is not None else None
    return Decision(passed=all(result.passed for result in results), rules=results, champion=version)


def _judged(rule: GateRule, scorecard: Mapping[str, Any], champion: Rival | None) -> RuleResult:
    try:
        value = number_at(scorecard, rule.metric)
        rival = number_at(scorecard, rule.better_than) if rule.better_than is not None else None
        theirs = number_at(champion.scorecard, rule.metric) if champion is not None else None
    except VisavisError as error:
        return RuleResult(metric=rule.metric, passed=False, reason=f"{error.message}; {error.fix}")
    bounds: list[_Bound] = []
    if rule.floor is not None:
        bounds.append(_Bound("the floor", rule.floor, value))
    if rule.better_than is not None:
        bounds.append(_Bound(rule.better_than, rival, value, strict=True))
    if rule.max_regression is not None and champion is not None:
        bounds.append(_regression(rule, value, theirs, champion))
    failures = [reason for bound in bounds if (reason := _failure(rule, value, bound))]
    reason = "; ".join(failures) or f"{_number(value)} against " + ", ".join(
        f"{bound.name} ({_number(bound.value)})" for bound in bounds
    )
    if not bounds:
        reason = f"{_number(value)}; there is no champion to compare with"
    return RuleResult(
        metric=rule.metric, passed=not failures, reason=reason, value=_finite(value), champion=_finite(theirs)
    )


def _regression(rule: GateRule, value: float | None, theirs: float | None, champion: Rival) -> _Bound:
    """Returns the bound that the champion sets: how much worse a candidate may be than it."""
    assert rule.max_regression is not None
    higher = rule.direction == "higher"
    allowed = -rule.max_regression if higher else rule.max_regression
    if rule.evidence == "interval":
        figure = champion.differences.get(rule.metric)
        ends = figure.ci95 if figure is not None else None
        worst = None if ends is None else (ends[0] if higher else ends[1])
        return _Bound("the largest regression, by the difference's interval,", allowed, worst)
    if theirs is None:
        return _Bound("the champion's figure", None, value)
    return _Bound(f"the champion's {theirs:.4g} {allowed:+.4g}", theirs + allowed, value)


def _failure(rule: GateRule, value: float | None, bound: _Bound) -> str | None:
    """Returns why a value fails against a bound."""
    if value is None or bound.value is None or bound.worst is None:
        unknown = (
            rule.metric if value is None else bound.name if bound.value is None else "the paired difference"
        )
        return f"{unknown} was not measured"
    if not (math.isfinite(bound.worst) and math.isfinite(bound.value)):
        return f"{bound.worst:.4g} against {bound.name} ({bound.value:.4g}) is not a comparison of numbers"
    good = bound.worst > bound.value if rule.direction == "higher" else bound.worst < bound.value
    if good or (bound.worst == bound.value and not bound.strict):
        return None
    side = "below" if rule.direction == "higher" else "above"
    return f"{bound.worst:.4g} is {side} {bound.name} ({bound.value:.4g})"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
