"""A training loop with a budget of processor seconds, which goes on where it was cut off."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from visavis.files import write_atomic


class Stateful(Protocol):
    """What a checkpoint can keep: a model, a loss with weights, an optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Returns everything to keep."""
        ...

    def load_state_dict(self, state_dict: Any) -> Any:
        """Takes back what `state_dict` gave."""
        ...


@dataclass
class Tick:
    """One step of the loop.

    Attributes:
        step: Steps done before this one, over all sittings.
        progress: Share of the budget spent, in [0, 1).
    """

    step: int
    progress: float
    note: str = ""
    """Set by the body: what the progress bar shows (the loss)."""


def one_cycle(progress: float, peak: float, warmup: float = 0.05) -> float:
    """Returns the learning rate at `progress` in [0, 1]: a linear rise, then a half cosine to 1 %."""
    if progress < warmup:
        return peak * (0.02 + 0.98 * progress / warmup)
    turn = (progress - warmup) / (1 - warmup)
    return peak * (0.01 + 0.99 * (1 + math.cos(math.pi * turn)) / 2)


def timed_steps(
    checkpoint: Path, state: Mapping[str, Stateful], seconds: float, label: str, save_every: float = 60.0
) -> Iterator[Tick]:
    """Yields ticks until the budget is spent; keeps `state` in `checkpoint` every minute and at the end.

    The budget is processor time of this process, not wall time, so that a busy machine trains the same net.
    Draw everything random in the body from a generator seeded with `tick.step`: then a run that was cut off
    sees the same data as one that was not.

    Args:
        checkpoint: File of the checkpoint; if it exists the loop goes on from it.
        state: Parts to keep, by name.
        seconds: Processor seconds over all sittings.
        label: Text of the progress bar.
        save_every: Processor seconds between checkpoints.
    """
    step, spent = 0, 0.0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        step, spent = kept["step"], kept["spent"]
        for name, part in state.items():
            part.load_state_dict(kept["state"][name])
    start = time.process_time() - spent
    saved = spent
    with tqdm(total=round(seconds), initial=round(spent), desc=label, unit="cpu-s", mininterval=2.0) as bar:
        while (spent := time.process_time() - start) < seconds:
            tick = Tick(step, spent / seconds)
            yield tick
            step += 1
            bar.update(round(spent) - bar.n)
            bar.set_postfix_str(f"step {step} {tick.note}", refresh=False)
            if spent - saved >= save_every:
                _save(checkpoint, state, step, spent)
                saved = spent
    if spent > saved:
        _save(checkpoint, state, step, spent)


def _save(checkpoint: Path, state: Mapping[str, Stateful], step: int, spent: float) -> None:
    buffer = io.BytesIO()
    parts = {name: part.state_dict() for name, part in state.items()}
    torch.save({"step": step, "spent": spent, "state": parts}, buffer)
    write_atomic(checkpoint, buffer.getvalue())
