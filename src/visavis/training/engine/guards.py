"""What stops a run that no longer learns: losses that are not numbers, losses that run away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError
from visavis.files import write_json
from visavis.training.config import EngineConfig

REPORT = "bad-steps.json"
_MEMORY = 0.98


@dataclass
class Guard:
    """Judges every step; skipped ones are counted and reported.

    Attributes:
        config: How much is tolerated.
        work: Folder for the report.
        skipped: Steps that changed nothing, by reason: `not_finite`, `nothing_to_learn`.
        bad: What is known of the last bad steps.
    """

    config: EngineConfig
    work: Path
    skipped: dict[str, int] = field(default_factory=dict)
    bad: list[dict[str, Any]] = field(default_factory=list)
    _in_a_row: int = 0
    _mean: float = math.nan
    _high: int = 0

    def nothing_to_learn(self, step: int) -> None:
        """Counts a step without a single word or picture to learn."""
        self.skipped["nothing_to_learn"] = self.skipped.get("nothing_to_learn", 0) + 1

    def not_finite(self, step: int, what: str, value: float, items: Sequence[Any]) -> None:
        """Counts a step whose loss or gradient is not finite.

        Raises:
            VisavisError: If it is one too many in a row.
        """
        self.skipped["not_finite"] = self.skipped.get("not_finite", 0) + 1
        self._in_a_row += 1
        self.bad = [*self.bad, {"step": step, what: str(value), "items": _names(items)}]
        self.bad = self.bad[-self.config.stop_after_bad_steps :]
        if self._in_a_row >= self.config.stop_after_bad_steps:
            write_json(self.work / REPORT, {"skipped": self.skipped, "last": self.bad})
            raise VisavisError(
                f"the {what} is {value} at step {step}, which is step {self._in_a_row} in a row without a number",
                fix=f"lower lr, or look at the data of these steps: {self.work / REPORT}",
            )

    def good(self, step: int, loss: float) -> None:
        """Takes note of a step that was learned from.

        Raises:
            VisavisError: If the loss has stayed far above its mean.
        """
        self._in_a_row = 0
        if self.config.divergence_factor and loss > self.config.divergence_factor * self._mean:
            self._high += 1
            if self._high >= self.config.divergence_steps:
                raise VisavisError(
                    f"training diverges: for {self._high} steps up to step {step} the loss was more than"
                    f" {self.config.divergence_factor:g} times its mean of {self._mean:.4g} (now {loss:.4g})",
                    fix="lower lr or raise warmup; engine.divergence_factor=0 switches this check off",
                )
            return
        self._high = 0
        self._mean = loss if math.isnan(self._mean) else _MEMORY * self._mean + (1 - _MEMORY) * loss

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps."""
        return {
            "skipped": self.skipped,
            "bad": self.bad,
            "row": self._in_a_row,
            "mean": str(self._mean),
            "high": self._high,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.skipped, self.bad = state["skipped"], state["bad"]
        self._in_a_row, self._mean, self._high = state["row"], float(state["mean"]), state["high"]


def _names(items: Sequence[Any]) -> list[str]:
    """Returns the ids of items, or what they look like."""
    return [str(item["id"]) if isinstance(item, dict) and "id" in item else repr(item)[:80] for item in items]
