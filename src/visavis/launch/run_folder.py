"""The part of a run's folder that is about one step, lent for a moment: a job elsewhere writes into it too."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from visavis.mirror import mirrored
from visavis.steps.contracts import RunContext


def step_folder(run: RunContext, step: str) -> AbstractContextManager[Path]:
    """Lends the folder of a run, with what its step has noted by now.

    Args:
        run: The run.
        step: Name of the step; only files of its name are read or written.
    """
    notes = [f"{folder}/{step}.json" for folder in ("failures", "jobs", "manifests", "timings")]
    return mirrored(run.run_dir, f"*/{step}.*", notes)
