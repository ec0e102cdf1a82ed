"""What a run says of itself on disk: its funnel and its timings, from the notes that the steps leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from visavis.steps.contracts import Manifest
from visavis.steps.framework import LEDGER_NAME
from visavis.steps.store import CURVES_SUFFIX
from visavis.steps.timings import read_timings

FUNNEL, TIMINGS, STATUS = "funnel.json", "timings.json", "status.json"
LATEST = "latest"
"""Second name of the newest run on this machine."""
FUNNEL_PLOT = "funnel.png"
SHEETS = {
    "chat": "Three rounds of talk",
    "cases": "Most and least like the face given",
    "round_cases": "Close-ups by name: clearest hits and misses",
    "stages": "People through the stages",
    "reconstruction": "Pictures and their reconstructions",
}
"""Pictures that the evaluation draws, as NAME.png, and their headings."""
SCORECARD, CHAT, REPORT = "scorecard.json", "chat.png", "report.html"
CHAMPION, DIFFERENCES = "champion.json", "differences.json"
"""Which version the champion is (null: there is none), and candidate minus champion by path."""
DECISION, PROMOTION, DRIFT = "decision.json", "promotion.json", "drift.json"
COST = "cost.json"
VERSION, WEIGHTS_TAG = "version.json", "weights.sha256"
"""Which registered version a result is about, and the tag with the hash of its weights."""
CURVES_PLOT, SCORECARD_PLOT = "curves.png", "scorecard.png"


def read_manifests(run_dir: Path) -> dict[str, Manifest]:
    """Returns the manifests of the steps that are done, in the order in which the steps began."""
    names = [timing["step"] for timing in read_timings(run_dir)]
    paths = {name: run_dir / "manifests" / f"{name}.json" for name in names}
    return {name: Manifest.read(path) for name, path in paths.items() if path.is_file()}


def funnel_of(run_dir: Path) -> dict[str, Any]:
    """Returns `{"steps": [{"step", "in", "kept", "dropped"}], "holds": bool, "clips": [...]}`.

    `steps` counts the items of each step, `holds` says whether `in = kept + sum(dropped)` at every one. `clips`
    follows the clips alone, as `visavis.data.funnel` does; it is empty until the conversations are built.
    """
    from visavis.data.funnel import LABELS, funnel

    manifests = read_manifests(run_dir)
    steps = [{"step": name, **manifest.counts} for name, manifest in manifests.items()]
    holds = all(row["in"] == row["kept"] + sum(row["dropped"].values()) for row in steps)
    whole = all(name in manifests for name in LABELS)
    ledgers = {name: manifests[name].file(LEDGER_NAME) for name in LABELS} if whole else {}
    return {"steps": steps, "holds": holds, "clips": funnel(ledgers)}


def timings_of(run_dir: Path) -> dict[str, Any]:
    """Returns `{"steps": [...], "seconds": total, "peak_rss_mb": highest}`; steps run one after another."""
    kept = ("step", "key", "status", "started", "seconds", "peak_rss_mb")
    steps = [{name: timing[name] for name in kept} for timing in read_timings(run_dir)]
    return {
        "steps": steps,
        "seconds": round(sum(step["seconds"] for step in steps), 3),
        "peak_rss_mb": max((step["peak_rss_mb"] for step in steps), default=0.0),
    }


def curves_of(run_dir: Path, notes: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Returns the losses of each step that trained: step -> series -> points (training step, loss).

    A reused step's curves are those of the run that did the work.

    Args:
        run_dir: Folder of the run.
        notes: Folder with the notes beside the results, from `Store.notes`.
    """
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for timing in read_timings(run_dir):
        path = notes / timing["step"] / f"{timing['key']}{CURVES_SUFFIX}"
        # A resumed training repeats the steps since its last checkpoint: the later point counts.
        rows = {row["step"]: row["values"] for row in _whole_lines(path)}
        for step, values in sorted(rows.items()):
            for name, value in values.items():
                if name.endswith("loss"):
                    panels.setdefault(timing["step"], {}).setdefault(name, []).append((step, value))
    return panels


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file that a kill may have cut off in the middle of a line."""
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue
