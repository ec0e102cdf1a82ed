"""How long a step takes and why it failed, noted in the folder of the run while it happens."""

from __future__ import annotations

import logging
import os
import resource
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from visavis.errors import TransientError, VisavisError, storage_error
from visavis.files import read_json, write_json

log = logging.getLogger("visavis.steps")


@contextmanager
def timed(name: str, run_dir: Path, not_again_seconds: int = 0) -> Iterator[dict[str, Any]]:
    """Keeps `run_dir/timings/<step>.json` true at every moment, and leaves the reason of a failure.

    Args:
        name: Name of the step.
        run_dir: Folder of the run.
        not_again_seconds: See `refuse_again`.
    """
    started = time.monotonic()
    timing: dict[str, Any] = {
        "step": name,
        "key": "",
        "status": "running",
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "seconds": 0.0,
        "peak_rss_mb": 0.0,
        "pid": os.getpid(),
    }
    path = run_dir / "timings" / f"{name}.json"
    refuse_again(run_dir, name, not_again_seconds)
    (run_dir / "failures" / f"{name}.json").unlink(missing_ok=True)
    write_json(path, timing)
    try:
        yield timing
    except SystemExit:
        timing["status"] = "stopped"  # asked to, with its state saved
        raise
    except BaseException as error:
        timing["status"] = "failed"
        note_failure(run_dir, name, error)
        raise
    finally:
        timing["seconds"] = round(time.monotonic() - started, 3)
        timing["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        _write_anyway(path, timing)


def refuse_again(folder: Path, name: str, seconds: int) -> None:
    """Ends at once what was just ended by a mistake of its user: trying again helps against lost machines only.

    Kubeflow tries a failed step again whatever it failed of.

    Args:
        folder: Folder of the run.
        name: Name of the step.
        seconds: How long the note of a failure counts; 0 on this machine, where only people try again.

    Raises:
        VisavisError: The same as then.
    """
    path = folder / "failures" / f"{name}.json"
    failure: dict[str, Any] = read_json(path) if seconds and path.is_file() else {"lasting": False}
    if failure["lasting"] and time.time() - failure["at"] < seconds:
        raise VisavisError(failure["message"], fix=failure["fix"])


def note_failure(folder: Path, name: str, error: BaseException) -> None:
    """Leaves the reason of a failure in the folder of a run."""
    known = storage_error(error) if isinstance(error, OSError) else error
    told = isinstance(known, VisavisError)
    note = {
        "step": name,
        "message": known.message if isinstance(known, VisavisError) else f"{type(error).__name__}: {error}",
        "fix": known.fix if isinstance(known, VisavisError) else "",
        "lasting": told and not isinstance(known, TransientError),
        "at": time.time(),
        "traceback": traceback.format_exc(),
    }
    _write_anyway(folder / "failures" / f"{name}.json", note)


def _write_anyway(path: Path, value: dict[str, Any]) -> None:
    """Writes a report; on a full disk the error that led here is the one that people must see."""
    try:
        write_json(path, value)
    except OSError as error:
        log.warning("could not write %s: %s", path, error)


def read_timings(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the timings of a run's steps in the order in which they began."""
    return sorted(
        (read_json(path) for path in (run_dir / "timings").glob("*.json")), key=lambda row: row["started"]
    )
