"""What a run says of itself on disk: its funnel and its timings, from the notes that the steps leave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.steps.framework import Manifest, read_timings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FUNNEL, TIMINGS, STATUS = "funnel.json", "timings.json", "status.json"
SCORECARD, CHAT, REPORT = "scorecard.json", "chat.png", "report.html"
_KEPT, _DROPPED = "#2a6f97", ("#e76f51", "#f4a261", "#e9c46a", "#b56576", "#6d597a", "#8d99ae", "#cdb4db")


def read_manifests(run_dir: Path) -> dict[str, Manifest]:
    """Returns the manifests of the steps that are done, in the order in which the steps began."""
    names = [timing["step"] for timing in read_timings(run_dir)]
    paths = {name: run_dir / "manifests" / f"{name}.json" for name in names}
    return {name: Manifest.read(path) for name, path in paths.items() if path.is_file()}


def funnel_of(run_dir: Path) -> dict[str, Any]:
    """Returns `{"steps": [{"step", "in", "kept", "dropped"}], "holds": bool}`.

    `holds` says whether `in = kept + sum(dropped)` at every step.
    """
    steps = [{"step": name, **manifest.counts} for name, manifest in read_manifests(run_dir).items()]
    holds = all(row["in"] == row["kept"] + sum(row["dropped"].values()) for row in steps)
    return {"steps": steps, "holds": holds}


def timings_of(run_dir: Path) -> dict[str, Any]:
    """Returns `{"steps": [...], "seconds": total, "peak_rss_mb": highest}`; steps run one after another."""
    kept = ("step", "key", "status", "started", "seconds", "peak_rss_mb")
    steps = [{name: timing[name] for name in kept} for timing in read_timings(run_dir)]
    return {
        "steps": steps,
        "seconds": round(sum(step["seconds"] for step in steps), 3),
        "peak_rss_mb": max((step["peak_rss_mb"] for step in steps), default=0.0),
    }


def funnel_figure(funnel: dict[str, Any]) -> Figure:
    """Returns a bar for each step: what it kept, and what it dropped by reason."""
    from matplotlib.figure import Figure

    steps = [row for row in funnel["steps"] if row["in"]]
    figure = Figure(figsize=(9, 0.42 * len(steps) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    reasons = sorted({reason for row in steps for reason in row["dropped"]})
    colours = {reason: _DROPPED[index % len(_DROPPED)] for index, reason in enumerate(reasons)}
    named: set[str] = set()
    for place, row in enumerate(steps):
        left = row["kept"] / row["in"]
        axes.barh(place, left, color=_KEPT, label=None if "kept" in named else "kept")
        named.add("kept")
        for reason, count in row["dropped"].items():
            label = None if reason in named else reason.replace("_", " ")
            axes.barh(place, count / row["in"], left=left, color=colours[reason], label=label)
            named.add(reason)
            left += count / row["in"]
        axes.text(1.01, place, f"{row['kept']:,} of {row['in']:,}", va="center", fontsize=9)
    axes.set_yticks(range(len(steps)), [row["step"].replace("_", " ") for row in steps])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("What each step kept of what came in", loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return figure
