"""The parts of a pack are small enough for one process: their stages are a function of step and generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from visavis.training.engine import Totals

StepLoss = Callable[[int, np.random.Generator], tuple[Tensor, dict[str, float]]]


class LocalTask:
    """A stage whose step is one indivisible item, computed by a function.

    Args:
        step_loss: Maps (step, generator) to the loss and the metrics to log.
    """

    def __init__(self, step_loss: StepLoss) -> None:
        self.step_loss = step_loss

    def draw(self, step: int, rng: np.random.Generator) -> list[tuple[int, np.random.Generator]]:
        """Returns the step itself."""
        return [(step, rng)]

    def collate(self, items: Any) -> tuple[int, np.random.Generator]:
        """Returns the one item."""
        step, rng = items[0]
        return step, rng

    def counts(self, batch: Any) -> Totals:
        """Returns one step."""
        return {"steps": 1.0}

    def loss(self, model: nn.Module, batch: Any, totals: Totals) -> tuple[Tensor, dict[str, float]]:
        """Calls the function."""
        step, rng = batch
        return self.step_loss(step, rng)
