"""What one sees while a run goes on: each step, how far it is and how long it took."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from visavis.steps.contracts import Manifest
from visavis.steps.timings import read_timings

_POLL_SECONDS = 0.4
_REMIND_SECONDS = 30.0
_SIGNS = {
    "running": "[cyan]…[/]",
    "ran": "[green]✓[/]",
    "reused": "[blue]=[/]",
    "stopped": "[yellow]‖[/]",
    "failed": "[red]✗[/]",
}


class Watch:
    """Shows the steps of a run as they go on; use it as a context manager.

    On a terminal it is one table that changes in place; in a log file it is a line for each event.

    Args:
        run_dir: Folder of the run.
        console: Where to show it.
    """

    def __init__(self, run_dir: Path, console: Console) -> None:
        self._run_dir = run_dir
        self._console = console
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)
        self._told: dict[str, str] = {}
        self._reminded = 0.0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _work(self) -> None:
        if not self._console.is_terminal:
            while not self._done.wait(_POLL_SECONDS):
                self._tell()
            self._tell()
            return
        with Live(console=self._console, refresh_per_second=4) as live:
            while not self._done.wait(_POLL_SECONDS):
                live.update(self._table())
            live.update(self._table())

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 1))
        for timing in _timings(self._run_dir):
            words = _words(self._run_dir, timing)
            table.add_row(_SIGNS[timing["status"]], timing["step"], f"{_seconds(timing):7.1f} s", words)
        return table

    def _tell(self) -> None:
        for timing in _timings(self._run_dir):
            step, state = timing["step"], timing["status"]
            seconds = _seconds(timing)
            if self._told.get(step) != state:
                self._told[step], self._reminded = state, 0.0
                took = "" if state == "running" else f" in {seconds:.1f} s"
                self._console.print(f"{step}: {state}{took}  {_words(self._run_dir, timing)}".rstrip())
            elif state == "running" and seconds - self._reminded >= _REMIND_SECONDS:
                self._reminded = seconds
                self._console.print(f"{step}: {seconds:.0f} s  {_words(self._run_dir, timing)}".rstrip())


def _timings(run_dir: Path) -> list[dict[str, Any]]:
    return read_timings(run_dir) if (run_dir / "timings").is_dir() else []


def _seconds(timing: dict[str, Any]) -> float:
    if timing["status"] != "running":
        return float(timing["seconds"])
    return (datetime.now(UTC) - datetime.fromisoformat(timing["started"])).total_seconds()


def _words(run_dir: Path, timing: dict[str, Any]) -> str:
    """Returns how far a running step is, or what a finished one kept."""
    step = timing["step"]
    manifest = run_dir / "manifests" / f"{step}.json"
    if timing["status"] in ("ran", "reused") and manifest.is_file():
        counts = Manifest.read(manifest).counts
        return f"kept {counts['kept']} of {counts['in']}"
    path = run_dir / "progress" / f"{step}.json"
    if timing["status"] != "running" or not path.is_file():
        return ""
    now = json.loads(path.read_text())
    share = now["done"] / now["total"] if now["total"] else 0.0
    return f"{share:4.0%}  {now['done']:g} of {now['total']:g} {now['label']}"
