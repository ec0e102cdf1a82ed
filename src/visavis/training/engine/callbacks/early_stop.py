"""Ends a stage whose loss has stopped falling."""

from __future__ import annotations

from typing_extensions import override

from visavis.training.engine.callbacks.base import Callback, Moment


class EarlyStop(Callback):
    """Stops after some logged points in a row without a loss below the best.

    Args:
        points: How many.
    """

    def __init__(self, points: int) -> None:
        self._points = points
        self._best, self._since = float("inf"), 0

    @override
    def after_step(self, moment: Moment) -> None:
        if "loss" not in moment.logged:
            return
        if moment.logged["loss"] < self._best:
            self._best, self._since = moment.logged["loss"], 0
        else:
            self._since += 1
            moment.stop = moment.stop or self._since >= self._points

    @override
    def state_dict(self) -> dict[str, float]:
        return {"best": min(self._best, 1e300), "since": self._since}

    @override
    def load_state_dict(self, state: dict[str, float]) -> None:
        self._best, self._since = state["best"], int(state["since"])
