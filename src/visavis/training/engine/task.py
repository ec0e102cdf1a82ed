"""What is trained on: the contract between a stage and the engine.

The engine draws the items of a step once, the same on every process, and deals them out over processes and over the
parts of an accumulated step. A loss is a sum over items divided by the totals of the *whole* step, so that neither
the number of processes nor that of the parts changes it (up to the order of the additions).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

Totals = dict[str, float]
TOKENS = "tokens"
"""Count that no loss is divided by: the tokens that were computed, for speed and MFU; a task need not give it."""


class Task(Protocol):
    """One stage of training.

    All that is random about an item (which one, its noise) is decided in `draw`, or comes from a seed that `draw` put
    into the item: then it does not depend on where the item is computed.
    """

    def draw(self, step: int, rng: np.random.Generator) -> Sequence[Any]:
        """Returns the items of a whole step; equal on all processes."""
        ...

    def collate(self, items: Sequence[Any]) -> Any:
        """Makes the batch that one process computes at once; `items` may be empty."""
        ...

    def counts(self, batch: Any) -> Totals:
        """Returns what the losses of a batch are divided by, such as `{"text": 57, "image": 3}`."""
        ...

    def loss(self, model: nn.Module, batch: Any, totals: Totals) -> tuple[Tensor, dict[str, float]]:
        """Returns the batch's share of the step's loss, and its shares of the metrics.

        Args:
            model: Reached by a call (`model(...)`), never by a method: it may be wrapped for many processes.
            batch: From `collate`.
            totals: Sums of `counts` over the whole step.
        """
        ...
