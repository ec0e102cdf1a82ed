"""Learning rate and random numbers of a step: both are functions of the step alone."""

from __future__ import annotations

import math

import numpy as np
import torch

from visavis.training.config import OptimConfig


def learning_rate(config: OptimConfig, step: int) -> float:
    """Returns the learning rate of a step: linear warm-up, then cosine to `min_lr_ratio`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    floor = config.min_lr_ratio
    return config.lr * 0.5 * ((1 + floor) + (1 - floor) * math.cos(math.pi * min(progress, 1.0)))


def step_rng(seed: int, step: int, rank: int = 0) -> np.random.Generator:
    """Returns the generator of one step, equal on all processes, and seeds torch's, which differs between them."""
    torch.manual_seed(seed * 1_000_003 + step + rank * 2**40)
    return np.random.default_rng((seed, step))
