"""The one training loop: AdamW, a schedule, atomic checkpoints, exact resume.

All that is random in a step comes from (seed, step), so the data position *is* the step number, and a run that was
killed goes on to the same weights as one that was not.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from visavis.errors import VisavisError
from visavis.training.config import OptimConfig
from visavis.training.engine.task import Task

CHECKPOINT = "checkpoint.pt"
Log = Callable[[dict[str, float], int], None]


def learning_rate(config: OptimConfig, step: int) -> float:
    """Returns the learning rate of a step: linear warm-up, then cosine to `min_lr_ratio`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    floor = config.min_lr_ratio
    return config.lr * 0.5 * ((1 + floor) + (1 - floor) * math.cos(math.pi * min(progress, 1.0)))


def step_rng(seed: int, step: int) -> np.random.Generator:
    """Returns the generator of one step and seeds torch's from the same pair."""
    torch.manual_seed(seed * 1_000_003 + step)
    return np.random.default_rng((seed, step))


def train(
    model: nn.Module,
    task: Task,
    config: OptimConfig,
    work: Path,
    log: Log | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Trains the parameters of `model` that require a gradient, in place.

    Args:
        model: Module to train; with `config.ema` it ends with the averaged weights.
        task: Gives the items of a step and their loss.
        config: Optimizer and schedule.
        work: Folder of the checkpoint; an existing one is resumed.
        log: Receives the mean metrics every `log_every` steps.
        progress: Receives (steps done, steps in all).

    Returns:
        The last logged metrics.

    Raises:
        VisavisError: If the loss is not finite.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2]
    plain = [p for p in parameters if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.lr,
        betas=config.betas,
        eps=1e-6,
    )
    average = copy.deepcopy(model).requires_grad_(False) if config.ema else None
    path = work / CHECKPOINT
    start = _resume(path, model, optimizer, average)
    model.train()
    sums: dict[str, float] = {}
    last: dict[str, float] = {}
    saved, began, since = time.monotonic(), time.monotonic(), start
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        batch = task.collate(task.draw(step, step_rng(config.seed, step)))
        loss, metrics = task.loss(model, batch, task.counts(batch))
        if not torch.isfinite(loss):
            raise VisavisError(
                f"the loss is {loss.item()} at step {step}", fix="lower lr, or look at the data of this step"
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        if average is not None:
            decay = min(config.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for mean, current in zip(average.parameters(), model.parameters(), strict=True):
                    mean.lerp_(current, 1 - decay)
        for name, value in {"loss": float(loss.detach()), "grad_norm": float(norm), **metrics}.items():
            sums[name] = sums.get(name, 0.0) + value
        if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
            count = step + 1 - since
            last = {name: value / count for name, value in sums.items()}
            last["lr"] = learning_rate(config, step)
            last["steps_per_second"] = count / (time.monotonic() - began)
            sums, since, began = {}, step + 1, time.monotonic()
            if log:
                log(last, step + 1)
        if time.monotonic() - saved > config.checkpoint_seconds:
            _save(path, model, optimizer, average, step + 1)
            saved = time.monotonic()
        if progress:
            progress(step + 1, config.steps)
    if config.steps > start:
        _save(path, model, optimizer, average, config.steps)
    if average is not None:
        model.load_state_dict(average.state_dict())
    model.eval()
    return last


def _save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None, step: int
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict() if average is not None else None,
        "step": step,
    }
    torch.save(state, temporary)
    temporary.replace(path)


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average is not None:
        average.load_state_dict(state["average"])
    return int(state["step"])
