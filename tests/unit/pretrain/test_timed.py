"""The loop with a budget: progress, resuming, the rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from visavis.pretrain import timed
from visavis.pretrain.timed import one_cycle, timed_steps


class Clock:
    """Processor time that goes on by one second a look."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed.time, "process_time", Clock())


def test_the_budget_ends_the_loop_and_the_next_call_goes_on(tmp_path: Path) -> None:
    checkpoint, layer = tmp_path / "checkpoint.pt", torch.nn.Linear(2, 2)
    first = list(timed_steps(checkpoint, {"layer": layer}, 10, "test"))
    assert [tick.step for tick in first] == list(range(9))
    assert [tick.progress for tick in first] == sorted(tick.progress for tick in first)
    again = torch.nn.Linear(2, 2)
    second = list(timed_steps(checkpoint, {"layer": again}, 15, "test"))
    assert second[0].step == 9 and second[0].progress >= 10 / 15
    assert torch.equal(again.weight, layer.weight)
    assert list(timed_steps(checkpoint, {"layer": again}, 15, "test")) == []


def test_a_killed_loop_loses_at_most_the_time_between_checkpoints(tmp_path: Path) -> None:
    checkpoint, layer = tmp_path / "checkpoint.pt", torch.nn.Linear(2, 2)
    loop = timed_steps(checkpoint, {"layer": layer}, 100, "test", save_every=4)
    for _ in range(12):
        tick = next(loop)
    loop.close()
    kept = torch.load(checkpoint, weights_only=True)
    assert tick.step - 4 <= kept["step"] <= tick.step


def test_the_rate_rises_and_falls() -> None:
    rates = [one_cycle(step / 100, 1.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.02) and rates[-1] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0) and rates.index(max(rates)) == 5
    assert rates[5:] == sorted(rates[5:], reverse=True)
