"""The loop resumes exactly, and a stage that has nothing to train on says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from visavis.errors import VisavisError
from visavis.pretrain.local_task import LocalTask
from visavis.training.config import OptimConfig
from visavis.training.engine import learning_rate, train


def _job(model: nn.Linear, stop_at: int | None = None):
    def step_loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.normal(size=(8, 4)).astype(np.float32)) + 0.1 * torch.randn(8, 4)
        return (model(x) - x.sum(1, keepdim=True)).square().mean(), {}

    return LocalTask(step_loss)


def _model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 1)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, ema: float) -> None:
    config = OptimConfig(
        steps=20, batch_size=8, lr=1e-2, warmup=3, ema=ema, checkpoint_seconds=1e-9, log_every=5
    )
    whole = _model()
    train(whole, _job(whole), config, tmp_path / "whole")
    for stop in (7, 13):
        killed = _model()
        with pytest.raises(KeyboardInterrupt):
            train(killed, _job(killed, stop), config, tmp_path / "killed")
    resumed = _model()
    train(resumed, _job(resumed), config, tmp_path / "killed")
    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.bias, whole.bias)


def test_schedule_warms_up_and_ends_at_its_floor() -> None:
    config = OptimConfig(steps=100, lr=1.0, warmup=10, min_lr_ratio=0.05)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.05, abs=1e-3)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = _model()
    config = OptimConfig(steps=2, warmup=0)
    with pytest.raises(VisavisError, match="step 0"):
        train(model, LocalTask(lambda step, rng: (model.weight.sum() * float("nan"), {})), config, tmp_path)
