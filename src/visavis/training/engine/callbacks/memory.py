"""The most memory that the process has held."""

from __future__ import annotations

import resource
import sys

import torch
from typing_extensions import override

from visavis.training.engine.callbacks.base import Callback, Moment

_UNIT = 2**20 if sys.platform == "darwin" else 2**10


class Memory(Callback):
    """Adds `peak_memory_mb` to logged points: of the GPU where there is one, else resident memory."""

    @override
    def after_step(self, moment: Moment) -> None:
        if moment.logged:
            moment.logged["peak_memory_mb"] = (
                torch.cuda.max_memory_allocated() / 2**20
                if torch.cuda.is_available()
                else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNIT
            )
