"""The part of a run's folder that is about one step, lent for a moment: a job elsewhere writes into it too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visavis.steps.contracts import RunContext


@contextmanager
def step_folder(run: RunContext, step: str) -> Iterator[Path]:
    """Lends the folder of a run, with what its step has noted by now.

    Args:
        run: The run.
        step: Name of the step; only files of its name are read or written.
    """
    yield Path(run.run_dir)
