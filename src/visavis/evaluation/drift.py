"""Drift: whether a model does worse on fresh inputs than on earlier ones, or the inputs are others.

Two scorecards on different items are compared figure by figure. Their 95 % intervals give the standard errors; a
difference counts if it is larger than chance would have it (two-sided normal test).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from visavis.evaluation.intervals import Figure
from visavis.evaluation.scorecard import Scorecard

_Z95 = NormalDist().inv_cdf(0.975)


class MonitorConfig(BaseModel):
    """What is watched after release.

    Attributes:
        model: Figures of the model; a fall is drift.
        inputs: Figures of the true pictures, on which no model has a part; any change is drift of the inputs.
        alpha: Chance of a false alarm for one figure; it is shared among all that are watched (Bonferroni).
        webhook: Address that is told of drift by POST; empty: nobody is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: tuple[str, ...] = (
        "rounds.right_person_accuracy",
        "identity.arcface_single_round",
        "alignment.clip_score",
        "reconstruction.psnr_db_served",
    )
    inputs: tuple[str, ...] = ("identity.arcface_real_pair", "alignment.clip_score_true")
    alpha: float = Field(0.05, gt=0, lt=1)
    webhook: str = Field("", pattern=r"^(https?://.+)?$")


@dataclass(frozen=True)
class Drift:
    """One figure then and now.

    Attributes:
        path: Path in the scorecard.
        of: Whether it tells of the model or of its inputs.
        since: What `before` is: `release`, or the time of an earlier look.
        before: Value then; None if it was not measured.
        now: Value now; None if it was not measured.
        difference: Now minus then, with its interval; None if it cannot be told.
        p_value: Of no difference; None if it cannot be told.
        drifted: Whether it counts.
    """

    path: str
    of: Literal["model", "inputs"]
    since: str
    before: float | None
    now: float | None
    difference: tuple[float, float, float] | None
    p_value: float | None
    drifted: bool

    def words(self) -> str:
        """Returns a line for people."""
        if self.difference is None or self.p_value is None:
            return f"{self.path}: {_number(self.before)} -> {_number(self.now)}: cannot be compared"
        value, low, high = self.difference
        verdict = "DRIFT" if self.drifted else "as before"
        return (
            f"{self.path}: {_number(self.before)} -> {_number(self.now)} since {self.since} "
            f"({value:+.4g}, {low:+.4g} to {high:+.4g}, p {self.p_value:.2g}): {verdict}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


def drift(now: Scorecard, earlier: Sequence[tuple[str, Scorecard]], config: MonitorConfig) -> list[Drift]:
    """Compares a scorecard with earlier ones of the same model.

    Args:
        now: Figures on fresh inputs.
        earlier: What each is (`release`, a time) and its figures.
        config: What is watched.
    """
    return list(_drifts(now, earlier, config))


def _drifts(
    now: Scorecard, earlier: Sequence[tuple[str, Scorecard]], config: MonitorConfig
) -> Iterator[Drift]:
    fresh = now.figures()
    alpha = config.alpha / (max(len(config.model) + len(config.inputs), 1) * max(len(earlier), 1))
    watched: list[tuple[str, Literal["model", "inputs"]]] = [(path, "model") for path in config.model]
    watched += [(path, "inputs") for path in config.inputs]
    for since, scorecard in earlier:
        past = scorecard.figures()
        for path, of in watched:
            yield _compared(path, of, since, past.get(path), fresh.get(path), alpha)


def _compared(
    path: str,
    of: Literal["model", "inputs"],
    since: str,
    before: Figure | None,
    now: Figure | None,
    alpha: float,
) -> Drift:
    old, new = (None if figure is None else figure.value for figure in (before, now))
    if before is None or now is None or old is None or new is None or not before.ci95 or not now.ci95:
        # A figure that was measured then and cannot be any more is no good news.
        return Drift(path, of, since, old, new, None, None, drifted=old is not None and new is None)
    error = math.hypot(*((high - low) / (2 * _Z95) for low, high in (before.ci95, now.ci95)))
    value = new - old
    p_value = math.erfc(abs(value) / error / math.sqrt(2)) if error else float(value == 0)
    drifted = p_value < alpha and (of == "inputs" or value < 0)
    interval = (value, value - _Z95 * error, value + _Z95 * error)
    return Drift(path, of, since, old, new, interval, p_value, drifted)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
