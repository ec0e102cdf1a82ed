"""What a model must reach to become a challenger, and under which name it is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from visavis.settings import read_yaml, validated


class GateRule(BaseModel):
    """One condition on one figure of the scorecard.

    Attributes:
        metric: Path in the scorecard; `.low` and `.high` name the ends of the interval.
        direction: Whether more (`higher`) or less (`lower`) is better.
        floor: Worst value that passes.
        better_than: Path of another figure of the same scorecard that the metric must beat.
        max_regression: How much worse than the champion the value may be; not asked without a champion, so the
            first version of a model has only floors to reach.
        evidence: Whether the values themselves must be within `max_regression` (`point`), or the worse end of the
            95 % interval of the paired difference on the same items (`interval`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    direction: Literal["higher", "lower"] = "higher"
    floor: float | None = None
    better_than: str | None = None
    max_regression: float | None = Field(None, ge=0)
    evidence: Literal["point", "interval"] = "point"

    @model_validator(mode="after")
    def _asks_something(self) -> GateRule:
        if self.floor is None and self.better_than is None and self.max_regression is None:
            raise ValueError(f"rule {self.metric} asks nothing: set floor, better_than or max_regression")
        if self.evidence == "interval" and self.max_regression is None:
            raise ValueError(
                f"rule {self.metric} has evidence: interval, which is about max_regression: set it"
            )
        return self


class GateConfig(BaseModel):
    """The rules of the gate; a model must pass all of them, so an empty list lets every model pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: tuple[GateRule, ...] = (
        GateRule(metric="rounds.right_person_accuracy.low", floor=0.60),
        GateRule(metric="rounds.right_person_accuracy", max_regression=0.05),
        GateRule(metric="identity.margin.low", floor=0.0),
        GateRule(metric="identity.arcface_single_round", floor=0.0, max_regression=0.05),
        GateRule(metric="alignment.clip_score", floor=0.0, max_regression=0.05),
        GateRule(
            metric="reconstruction.psnr_db_faces_after", better_than="reconstruction.psnr_db_faces_before"
        ),
        GateRule(metric="reconstruction.psnr_db", floor=10.0),
        GateRule(metric="reconstruction.psnr_db_served", max_regression=0.5),
    )


def read_rules(path: Path) -> GateConfig:
    """Returns the rules of a YAML file: `rules:` and a list, as under `gate` in a recipe.

    Raises:
        VisavisError: If the file does not exist or holds something else.
    """
    words = "give a YAML file with `rules:`"
    values = read_yaml(path, title=str(path), absent=words, broken=words)
    fix = "`visavis recipe show` prints rules to start from, under `gate`"
    return validated(GateConfig, values, title=str(path), fix=fix)


class RegisterConfig(BaseModel):
    """Where a model version goes.

    Attributes:
        name: Registered model.
        alias: Alias that a version gets when it passed the gate. A version that failed is registered without
            it: what was tried and why it was refused stays known.
        approval: Whether somebody must approve a version before it becomes the champion (`required`), or passing
            the gate is enough (`automatic`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("visavis", min_length=1)
    alias: Literal["challenger"] = "challenger"
    approval: Literal["required", "automatic"] = "required"
