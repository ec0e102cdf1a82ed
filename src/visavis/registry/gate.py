"""The gate: rules over a scorecard, and a decision that names what failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

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
    """Whether a model may become a challenger, rule by rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passed: bool
    rules: tuple[RuleResult, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Metrics of the rules that do not hold."""
        return tuple(rule.metric for rule in self.rules if not rule.passed)

    def words(self) -> str:
        """Returns the decision as one line per rule, failures first."""
        ordered = sorted(self.rules, key=lambda rule: rule.passed)
        lines = [f"{'pass' if rule.passed else 'FAIL'}  {rule.metric}: {rule.reason}" for rule in ordered]
        return "\n".join(lines or ["pass  no rules"])


def decide(
    scorecard: Mapping[str, Any], champion_scorecard: Mapping[str, Any] | None, config: GateConfig
) -> Decision:
    """Judges a candidate.

    Args:
        scorecard: Scorecard of the candidate, in its JSON form.
        champion_scorecard: Scorecard of the champion on the same data, or None if there is no champion.
        config: The rules.

    Raises:
        VisavisError: If a rule names a figure that the scorecard does not have.
    """
    results = tuple(_judged(rule, scorecard, champion_scorecard) for rule in config.rules)
    return Decision(passed=all(result.passed for result in results), rules=results)


def _judged(rule: GateRule, scorecard: Mapping[str, Any], champion: Mapping[str, Any] | None) -> RuleResult:
    value = number_at(scorecard, rule.metric)
    theirs = number_at(champion, rule.metric) if champion is not None else None
    bounds: list[tuple[str, float | None]] = []
    if rule.floor is not None:
        bounds.append(("the floor", rule.floor))
    if rule.better_than is not None:
        bounds.append((rule.better_than, number_at(scorecard, rule.better_than)))
    if rule.max_regression is not None and theirs is not None:
        allowed = -rule.max_regression if rule.direction == "higher" else rule.max_regression
        bounds.append((f"the champion's {theirs:.4g} {allowed:+.4g}", theirs + allowed))
    failures = [reason for name, bound in bounds if (reason := _failure(rule, value, name, bound))]
    reason = "; ".join(failures) or f"{_number(value)} against " + ", ".join(
        f"{name} ({_number(bound)})" for name, bound in bounds
    )
    if not bounds:
        reason = f"{_number(value)}; there is no champion to compare with"
    return RuleResult(metric=rule.metric, passed=not failures, reason=reason, value=value, champion=theirs)


def _failure(rule: GateRule, value: float | None, name: str, bound: float | None) -> str | None:
    """Returns why a value fails against a bound; what was not measured fails."""
    if value is None or bound is None:
        return f"{rule.metric if value is None else name} was not measured"
    strict = name == rule.better_than
    good = value > bound if rule.direction == "higher" else value < bound
    if good or (value == bound and not strict):
        return None
    return f"{value:.4g} is {'below' if rule.direction == 'higher' else 'above'} {name} ({bound:.4g})"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
