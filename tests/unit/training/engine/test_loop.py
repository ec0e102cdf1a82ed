"""The loop resumes exactly, and a stage that has nothing to train on says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from visavis.errors import VisavisError
from visavis.files import read_json
from visavis.pretrain.local_task import LocalTask
from visavis.training.config import EngineConfig, OptimConfig
from visavis.training.engine import learning_rate, train
from visavis.training.engine.callbacks import Samples


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


class Items:
    """Numbers to fit; the loss of some steps is spoiled."""

    def __init__(
        self, model: nn.Linear, spoiled: Callable[[int], float] = lambda step: 0.0, count: int = 4
    ) -> None:
        self.model, self.spoiled, self.count = model, spoiled, count

    def draw(self, step: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        return [{"id": f"item-{step}-{n}", "step": step, "x": rng.normal(size=4)} for n in range(self.count)]

    def collate(self, items: Sequence[dict[str, Any]]) -> tuple[int, Tensor]:
        return items[0]["step"], torch.tensor(np.stack([item["x"] for item in items]), dtype=torch.float32)

    def counts(self, batch: tuple[int, Tensor]) -> dict[str, float]:
        return {"numbers": 0.0 if self.spoiled(batch[0]) < 0 else float(len(batch[1]))}

    def loss(
        self, model: nn.Module, batch: tuple[int, Tensor], totals: dict[str, float]
    ) -> tuple[Tensor, dict[str, float]]:
        step, x = batch
        error = (model(x) - x.sum(1, keepdim=True)).square().sum() / totals["numbers"]
        return error * (1 + self.spoiled(step)), {}


def test_single_steps_without_a_number_are_left_out(tmp_path: Path) -> None:
    model, config = _model(), OptimConfig(steps=9, warmup=0, lr=1e-2, log_every=9)
    last = train(model, Items(model, lambda step: float("nan") if step in (2, 5) else 0.0), config, tmp_path)
    assert last["skipped_steps"] == 2
    assert torch.isfinite(model.weight).all()


def test_many_steps_without_a_number_stop_the_run_with_a_report(tmp_path: Path) -> None:
    model, config = _model(), OptimConfig(steps=9, warmup=0)
    engine = EngineConfig(stop_after_bad_steps=3)
    with pytest.raises(VisavisError, match="loss is nan at step 4") as caught:
        train(
            model,
            Items(model, lambda step: float("nan") if step > 1 else 0.0),
            config,
            tmp_path,
            engine=engine,
        )
    assert "bad-steps.json" in caught.value.fix
    report = read_json(tmp_path / "bad-steps.json")
    assert [row["step"] for row in report["last"]] == [2, 3, 4]
    assert report["last"][0]["items"][0] == "item-2-0"


def test_a_loss_that_runs_away_stops_the_run(tmp_path: Path) -> None:
    model, config = _model(), OptimConfig(steps=40, warmup=0, lr=1e-3)
    engine = EngineConfig(divergence_factor=5, divergence_steps=4)
    with pytest.raises(VisavisError, match="diverges: for 4 steps up to step 13"):
        train(model, Items(model, lambda step: 100.0 if step >= 10 else 0.0), config, tmp_path, engine=engine)


def test_steps_with_nothing_to_learn_are_counted(tmp_path: Path) -> None:
    model, config = _model(), OptimConfig(steps=6, warmup=0, log_every=6)
    last = train(model, Items(model, lambda step: -1.0 if step % 2 else 0.0), config, tmp_path)
    assert last["skipped_steps"] == 3
    with pytest.raises(VisavisError, match="no step of 6 could be learned from"):
        train(model, Items(model, lambda step: -1.0), config, tmp_path / "none")


def test_a_batch_too_small_to_be_dealt_out_is_refused(tmp_path: Path) -> None:
    model = _model()
    with pytest.raises(VisavisError, match="batch_size 4 is too small for 1 processes of 5 parts"):
        train(model, Items(model), OptimConfig(steps=1), tmp_path, engine=EngineConfig(accumulate=5))


def test_a_stage_that_no_longer_learns_ends_early(tmp_path: Path) -> None:
    model, config = _model(), OptimConfig(steps=50, warmup=0, lr=1e-12, log_every=1)
    done: list[int] = []
    engine = EngineConfig(early_stop_points=3)
    train(model, Items(model), config, tmp_path, lambda _, step: done.append(step), None, engine)
    assert len(done) < 50


def test_points_tell_speed_and_memory(tmp_path: Path) -> None:
    model, config, points = _model(), OptimConfig(steps=4, warmup=0, log_every=2), []
    seen: list[int] = []
    train(
        model,
        Items(model),
        config,
        tmp_path,
        lambda values, step: points.append((step, values)),
        callbacks=[Samples(seen.append, 3)],
    )
    assert [step for step, _ in points] == [2, 4]
    assert {"loss", "grad_norm", "lr", "steps_per_second", "peak_memory_mb"} <= set(points[0][1])
    assert seen == [3]


def test_a_resumed_run_logs_what_the_unbroken_one_logs(tmp_path: Path) -> None:
    config = OptimConfig(steps=8, warmup=0, lr=1e-2, log_every=4, checkpoint_seconds=1e-9)

    def losses(folder: str, stop_at: int | None = None) -> list[float]:
        model, found = _model(), []
        job = _job(model, stop_at)
        with suppress(KeyboardInterrupt):
            train(model, job, config, tmp_path / folder, lambda values, _: found.append(values["loss"]))
        return found

    whole = losses("whole")
    assert losses("killed", 6) + losses("killed") == whole
