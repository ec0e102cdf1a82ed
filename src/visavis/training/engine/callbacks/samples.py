"""Shows what the model makes while it is trained."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from visavis.training.engine.callbacks.base import Callback, Moment


class Samples(Callback):
    """Calls a function with the number of steps done, every `every` steps.

    The function draws from generators of its own: the training must not depend on whether somebody looks.
    """

    def __init__(self, show: Callable[[int], None], every: int) -> None:
        self._show = show
        self._every = every

    @override
    def after_step(self, moment: Moment) -> None:
        if moment.done % self._every == 0:
            self._show(moment.done)
