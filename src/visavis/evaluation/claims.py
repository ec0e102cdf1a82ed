"""The paper's claims, tried again at our size: what it found, what we found over seeds, and whether it holds.

A claim compares two arms that were trained alike but for one thing, once per seed. Our figure is the mean
over seeds of the paired difference, with Student's 95 % interval; it says how the result varies with
training, on one test set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from visavis.errors import VisavisError
from visavis.evaluation.comparisons import Claim
from visavis.evaluation.intervals import Figure, mean_over_seeds
from visavis.evaluation.scorecard import number_at
from visavis.files import write_atomic, write_json

Verdict = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class ClaimResult:
    """A claim with our figures.

    Attributes:
        claim: What is tried.
        treatment: Seed to the metric of the better arm.
        control: Seed to the metric of the other arm.
        note: What a reader must know of our comparison.
    """

    claim: Claim
    treatment: Mapping[int, float]
    control: Mapping[int, float]
    note: str = ""

    def __post_init__(self) -> None:
        if self.treatment.keys() != self.control.keys() or not self.treatment:
            raise VisavisError(
                f"claim {self.claim.claim_id}: arms have the seeds {sorted(self.treatment)} and {sorted(self.control)}",
                fix="train both arms with the same seeds, at least one",
            )
        numbers = [*self.treatment.values(), *self.control.values()]
        if not all(math.isfinite(number) for number in numbers):
            raise VisavisError(
                f"claim {self.claim.claim_id}: a figure is not finite",
                fix="look at the scorecards of its runs; an arm that diverged must be reported, not averaged",
            )

    @classmethod
    def from_scorecards(
        cls,
        claim: Claim,
        treatment: Mapping[int, Mapping[str, Any]],
        control: Mapping[int, Mapping[str, Any]],
        note: str = "",
    ) -> ClaimResult:
        """Returns the result of two arms whose scorecards (JSON forms) are given by seed.

        Raises:
            VisavisError: If a scorecard lacks the claim's figure or has no items for it.
        """

        def read(arm: Mapping[int, Mapping[str, Any]], path: str) -> dict[int, float]:
            figures = {seed: number_at(scorecard, path) for seed, scorecard in arm.items()}
            found = {seed: figure for seed, figure in figures.items() if figure is not None}
            if len(found) < len(figures):
                raise VisavisError(
                    f"claim {claim.claim_id}: {path} was measured on no item for the seeds"
                    f" {sorted(figures.keys() - found.keys())}",
                    fix="evaluate these arms on the full test split",
                )
            return found

        return cls(
            claim, read(treatment, claim.metric), read(control, claim.control_metric or claim.metric), note
        )

    @property
    def seeds(self) -> list[int]:
        """The seeds, sorted."""
        return sorted(self.treatment)

    @property
    def difference(self) -> Figure:
        """Treatment minus control, paired by seed, with its interval over seeds."""
        return mean_over_seeds([self.treatment[seed] - self.control[seed] for seed in self.seeds])

    @property
    def verdict(self) -> Verdict:
        """Holds if the interval lies above 0; does not hold if it excludes the smallest difference that matters."""
        ci95 = self.difference.ci95
        if ci95 is None:
            return "undecided"
        if ci95[0] > 0:
            return "holds"
        return "does not hold" if ci95[1] < self.claim.smallest else "undecided"

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "id": self.claim.claim_id,
            "claim": self.claim.says,
            "source": self.claim.source,
            "paper": self.claim.paper,
            "paper_difference": self.claim.paper_difference,
            "metric": self.claim.metric,
            "unit": self.claim.unit,
            "smallest_difference": self.claim.smallest,
            "treatment": _arm(self.claim.treatment, self.treatment),
            "control": _arm(self.claim.control, self.control),
            "difference": self.difference.to_dict(),
            "verdict": self.verdict,
            "note": self.note,
        }


def write_claims(
    results: Sequence[ClaimResult], markdown: Path, json_path: Path, *, context: str = ""
) -> None:
    """Writes what holds and what does not, for people and for machines.

    Args:
        results: One for each claim tried.
        markdown: Usually `docs/claims.md`.
        json_path: Usually `claims.json`.
        context: A sentence on the run: recipe, hardware, number of test items.
    """
    write_json(json_path, {"claims": [result.to_dict() for result in results], "context": context})
    write_atomic(markdown, claims_markdown(results, context=context))


def claims_markdown(results: Sequence[ClaimResult], *, context: str = "") -> str:
    """Returns the page of the claims."""
    lines = [
        "# The paper's claims, tried again",
        "",
        "Each claim compares two arms that were trained alike but for one thing, with the same seeds. Our figure is"
        " the mean over seeds of treatment minus control; brackets hold Student's 95 % interval. A claim **holds** if"
        " the interval lies above 0, **does not hold** if it excludes even the smallest difference that would matter,"
        " and is **undecided** otherwise. A verdict is on this size and this data, not on the paper.",
        "",
        *([context, ""] if context else []),
        "| claim | paper | ours: treatment | ours: control | difference | seeds | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_table_row(result) for result in results]
    for result in results:
        claim = result.claim
        lines += [
            "",
            f"## {claim.says}",
            "",
            f"* **Paper** ({claim.source}): {claim.paper}.",
            f"* **Ours**: {claim.treatment} against {claim.control}; `{claim.metric}`"
            f" ({claim.unit}), smallest difference that matters {claim.smallest:g}.",
            f"* **By seed**: {'; '.join(_seed_words(result, seed) for seed in result.seeds)}.",
            f"* **Verdict**: {result.verdict}. {_reason(result)}",
        ]
        if result.note:
            lines.append(f"* {result.note}")
    return "\n".join(lines) + "\n"


def _arm(words: str, figures: Mapping[int, float]) -> dict[str, Any]:
    by_seed = {str(seed): figures[seed] for seed in sorted(figures)}
    return {"arm": words, "by_seed": by_seed, **mean_over_seeds(list(by_seed.values())).to_dict()}


def _table_row(result: ClaimResult) -> str:
    claim = result.claim
    arms = [
        _number(claim, sum(figures.values()) / len(figures)) for figures in (result.treatment, result.control)
    ]
    cells = [claim.says, claim.paper, *arms, _difference(result), str(len(result.seeds))]
    return f"| {' | '.join(cell.replace('|', '/') for cell in [*cells, f'**{result.verdict}**'])} |"


def _difference(result: ClaimResult) -> str:
    figure = result.difference
    words = _number(result.claim, figure.value or 0.0, signed=True)
    if figure.ci95 is None:
        return words
    low, high = (_number(result.claim, end, signed=True) for end in figure.ci95)
    return f"{words} [{low}, {high}]"


def _number(claim: Claim, value: float, *, signed: bool = False) -> str:
    digits = 2 if claim.unit == "dB" else 3
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _seed_words(result: ClaimResult, seed: int) -> str:
    first, second = (_number(result.claim, arm[seed]) for arm in (result.treatment, result.control))
    return f"seed {seed}: {first} against {second}"


def _reason(result: ClaimResult) -> str:
    ci95 = result.difference.ci95
    if ci95 is None:
        return "One seed gives no interval."
    low, high = (_number(result.claim, end, signed=True) for end in ci95)
    if result.verdict == "holds":
        return f"The interval [{low}, {high}] lies above 0."
    if result.verdict == "does not hold":
        smallest = f"{result.claim.smallest:g} {result.claim.unit}"
        return f"The interval [{low}, {high}] excludes an advantage of {smallest}."
    return (
        f"The interval [{low}, {high}] holds both no advantage and one that matters; more seeds would tell."
    )
