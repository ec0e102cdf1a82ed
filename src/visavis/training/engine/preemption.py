"""A machine that is about to be taken away sends SIGTERM: the step is finished, the state saved, the process ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

RESUME_ME = 75
"""Exit code of a run that was asked to stop and has saved its state (EX_TEMPFAIL): start it again."""


class Preempted(SystemExit):
    """The run was asked to stop; raised once its state is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(RESUME_ME)
        self.step = step

    def __str__(self) -> str:
        return f"asked to stop (SIGTERM) and saved at step {self.step}: the same command goes on from there"


class StopSignal:
    """Notes SIGTERM while it is entered; outside of the main thread, where Python forbids it, notes nothing."""

    def __init__(self) -> None:
        self.came = False
        self._before: Any = None

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
