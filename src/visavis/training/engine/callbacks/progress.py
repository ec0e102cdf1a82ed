"""How far a stage is, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from visavis.training.engine.callbacks.base import Callback, Moment


class Progress(Callback):
    """Calls a function with (steps done, steps in all)."""

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self._tell = tell

    @override
    def after_step(self, moment: Moment) -> None:
        self._tell(moment.done, moment.steps)
