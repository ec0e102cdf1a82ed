"""Means of the figures between two logged points."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from visavis.training.engine.callbacks.base import Callback, Moment

Log = Callable[[dict[str, float], int], None]


class Averages(Callback):
    """Fills `logged` at every `every`-th step and at the last; stands before the callbacks that add to it."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    @override
    def after_step(self, moment: Moment) -> None:
        for name, value in moment.values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        if moment.done % self._every == 0 or moment.done == moment.steps:
            moment.logged.update({name: total / self._counts[name] for name, total in self._sums.items()})
            self._sums, self._counts = {}, {}

    @override
    def state_dict(self) -> dict[str, float]:
        sums = {f"sum.{name}": value for name, value in self._sums.items()}
        return {**sums, **{f"count.{name}": value for name, value in self._counts.items()}}

    @override
    def load_state_dict(self, state: dict[str, float]) -> None:
        self._sums = {k.removeprefix("sum."): v for k, v in state.items() if k.startswith("sum.")}
        self._counts = {k.removeprefix("count."): int(v) for k, v in state.items() if k.startswith("count.")}


class Metrics(Callback):
    """Hands logged points on, to a tracker or a terminal; stands last."""

    def __init__(self, log: Log | None) -> None:
        self._log = log
        self.last: dict[str, float] = {}

    @override
    def after_step(self, moment: Moment) -> None:
        if moment.logged:
            self.last = moment.logged
            if self._log:
                self._log(moment.logged, moment.done)

    @override
    def state_dict(self) -> dict[str, float]:
        return self.last

    @override
    def load_state_dict(self, state: dict[str, float]) -> None:
        self.last = dict(state)
