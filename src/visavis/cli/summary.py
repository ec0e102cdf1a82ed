"""What a finished run tells people: its funnel, its scorecard, its times, and where to look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from visavis.files import read_json

_BAR = 24


def show(run_dir: Path, console: Console, model: bool = True) -> None:
    """Prints the summary of a run; what the run did not write is left out.

    Args:
        run_dir: Folder of the run.
        console: Where to print.
        model: Whether the run made a model that one can talk to.
    """
    parts: list[RenderableType] = []
    funnel, timings, scorecard = (run_dir / f"{name}.json" for name in ("funnel", "timings", "scorecard"))
    if funnel.is_file():
        parts += [
            Text("\nFunnel: in = kept + dropped at every step", style="bold"),
            funnel_table(read_json(funnel)),
        ]
    if scorecard.is_file():
        from visavis.evaluation import Scorecard, scorecard_table

        parts += [Text(), scorecard_table(Scorecard.read(scorecard), slices=False)]
    decision, promotion = (run_dir / f"{name}.json" for name in ("decision", "promotion"))
    if decision.is_file():
        parts += [Text("\nGate", style="bold"), gate_table(read_json(decision))]
    if promotion.is_file():
        parts.append(Text(f"  {read_json(promotion)['words']}"))
    if timings.is_file():
        parts += [Text("\nTime", style="bold"), timings_table(read_json(timings))]
    console.print(Group(*parts))
    console.print(Text("\nWhere to look", style="bold"))
    for name, words in (("report.html", "the report"), ("chat.png", "a chat of three rounds")):
        if (run_dir / name).is_file():
            console.print(f"  {words:<24} {run_dir / name}", markup=False, soft_wrap=True)
    console.print("  curves, grids, versions  visavis ui")
    if model:
        console.print("  versions, who moved them visavis models --history")
        console.print("  talk to the model        make chat, or: visavis chat")


def show_claims(run_dir: Path, page: Path | None, console: Console) -> None:
    """Prints which of the paper's claims hold, and where that is written.

    Args:
        run_dir: Folder of the run, with its `claims.json`.
        page: Where the page was written once more.
        console: Where to print.
    """
    content = read_json(run_dir / "claims.json")
    console.print(Text("\nThe paper's claims", style="bold"), claims_table(content))
    console.print(content["context"])
    for path in (run_dir / "claims.json", run_dir / "claims.md", page):
        if path is not None:
            console.print(f"  {path}", markup=False, soft_wrap=True)


def claims_table(content: Mapping[str, Any]) -> Table:
    """Returns the claims as a table: whether each holds, what it says, and the difference with its interval."""
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim")
    colours = {"holds": "green", "does not hold": "red", "undecided": "yellow"}
    for claim in content["claims"]:
        digits = 2 if claim["unit"] == "dB" else 3
        ours, theirs = (f"{claim[arm]['value']:.{digits}f}" for arm in ("treatment", "control"))
        difference, verdict = claim["difference"], claim["verdict"]
        low, high = (f"{end:+.{digits}f}" for end in difference["ci95"])
        figures = f"{difference['value']:+.{digits}f} ({low} to {high}), {difference['n']} seeds"
        table.add_row(
            f"[{colours[verdict]}]{verdict}[/]",
            f"{claim['claim']} ({claim['unit']})\n[dim]{ours} against {theirs}: {figures}[/]",
        )
    return table


def funnel_table(funnel: Mapping[str, Any]) -> Table:
    """Returns the funnel as a table: a row for each step, with what it dropped and why."""
    table = _table("step", "in", "kept", "dropped, by reason")
    for row in funnel["steps"]:
        dropped = sorted(row["dropped"].items(), key=lambda item: -item[1])
        words = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in dropped)
        table.add_row(row["step"], f"{row['in']:,}", f"{row['kept']:,}", words or "-")
    return table


def gate_table(decision: Mapping[str, Any]) -> Table:
    """Returns the gate's decision as a table: a row for each rule, those that failed first."""
    table = Table(box=None, padding=(0, 2), show_header=False)
    for rule in sorted(decision["rules"], key=lambda rule: bool(rule["passed"])):
        mark = "[green]pass[/]" if rule["passed"] else "[red]FAIL[/]"
        table.add_row(mark, rule["metric"], rule["reason"])
    return table


def timings_table(timings: Mapping[str, Any]) -> Table:
    """Returns the times as a table: a row for each step, with its share as a bar."""
    table = _table("step", "seconds", "peak MB", "")
    longest = max((step["seconds"] for step in timings["steps"]), default=0.0) or 1.0
    for step in timings["steps"]:
        bar = "█" * round(_BAR * step["seconds"] / longest)
        note = bar if step["status"] == "ran" else f"{bar} {step['status']}".strip()
        table.add_row(step["step"], f"{step['seconds']:.1f}", f"{step['peak_rss_mb']:.0f}", note)
    table.add_section()
    table.add_row("all", f"{timings['seconds']:.1f}", f"{timings['peak_rss_mb']:.0f}", "")
    return table


def _table(first: str, *numbers_then_words: str) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column(first)
    *numbers, words = numbers_then_words
    for name in numbers:
        table.add_column(name, justify="right")
    table.add_column(words)
    return table
