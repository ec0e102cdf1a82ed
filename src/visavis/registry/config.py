"""What a model must reach to become a challenger, and under which name it is registered."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class GateRule(BaseModel):
    """One condition on one figure of the scorecard.

    Attributes:
        metric: Path in the scorecard; `.low` and `.high` name the ends of the interval.
        direction: Whether more (`higher`) or less (`lower`) is better.
        floor: Worst value that passes.
        better_than: Path of another figure of the same scorecard that the metric must beat.
        max_regression: How much worse than the champion the value may be; not asked without a champion.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    direction: Literal["higher", "lower"] = "higher"
    floor: float | None = None
    better_than: str | None = None
    max_regression: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _asks_something(self) -> GateRule:
        if self.floor is None and self.better_than is None and self.max_regression is None:
            raise ValueError(f"rule {self.metric} asks nothing: set floor, better_than or max_regression")
        return self


class GateConfig(BaseModel):
    """The rules of the gate; a model must pass all of them, so an empty list lets every model pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: tuple[GateRule, ...] = (
        GateRule(metric="rounds.right_person_accuracy.low", floor=0.60, max_regression=0.05),
        GateRule(metric="identity.margin.low", floor=0.0),
        GateRule(metric="identity.arcface_single_round", floor=0.0, max_regression=0.05),
        GateRule(metric="alignment.clip_score", floor=0.0, max_regression=0.05),
        GateRule(
            metric="reconstruction.psnr_db_faces_after", better_than="reconstruction.psnr_db_faces_before"
        ),
        GateRule(metric="reconstruction.psnr_db", floor=10.0, max_regression=0.5),
    )


class RegisterConfig(BaseModel):
    """Where a model version goes.

    Attributes:
        name: Registered model.
        alias: Alias that a version gets when it passed the gate. A version that failed is registered without
            it: what was tried and why it was refused stays known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("visavis", min_length=1)
    alias: Literal["challenger"] = "challenger"
