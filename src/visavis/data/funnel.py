"""The funnel: how many clips came in, what each step kept, and why it dropped the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visavis.data.ledger import LedgerRow, read_ledger

LABELS = {
    "curate_clips": "two people, side by side",
    "describe_clips": "a caption with two names",
    "segment_faces": "both faces cut out",
    "build_conversations": "a chat in three rounds",
}
_KEPT = "#3f6fb5"
_DROPPED = ("#d9744a", "#e3a34f", "#c75b6a", "#8c6bb1", "#6f9e6b", "#5aa3a8", "#a98467", "#9aa0a8")
_NAMED_REASONS = 7


def funnel(ledgers: Mapping[str, Path | Sequence[LedgerRow]]) -> list[dict[str, Any]]:
    """Follows the clips through the ledgers of the steps.

    Captions and masks are made side by side; here they are put one after the other, as if each step got only
    what the ones before had kept. A clip passes `segment_faces` with both of its faces, and
    `build_conversations` with a chat in three rounds.

    Args:
        ledgers: Step -> ledger or its rows, in the order of the funnel; the first one counts all clips.

    Returns:
        Rows `{"step", "label", "in", "kept", "dropped": {reason: n}}`; each row's `in` is the `kept` before.

    Raises:
        ValueError: If a ledger does not account for exactly the clips that the first step kept.
    """
    rows: list[dict[str, Any]] = []
    first_kept: set[str] | None = None
    alive: set[str] = set()
    for step, given in ledgers.items():
        fates = _fates(step, read_ledger(given) if isinstance(given, Path) else given)
        if first_kept is None:
            alive = set(fates)
        elif set(fates) != first_kept:
            missing, extra = len(first_kept - set(fates)), len(set(fates) - first_kept)
            raise ValueError(f"ledger of {step}: {missing} clips are missing, {extra} came from nowhere")
        dropped = Counter(reason for clip in alive if (reason := fates[clip]) is not None)
        kept = {clip for clip in alive if fates[clip] is None}
        rows.append(
            {
                "step": step,
                "label": LABELS.get(step, step),
                "in": len(alive),
                "kept": len(kept),
                "dropped": dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0]))),
            }
        )
        alive = kept
        first_kept = kept if first_kept is None else first_kept
    check_funnel(rows)
    return rows


def check_funnel(rows: Sequence[Mapping[str, Any]]) -> None:
    """Checks that nothing is lost: `in = kept + Σ dropped`, and each `in` is the `kept` before.

    Raises:
        ValueError: Naming the step that does not add up.
    """
    before: int | None = None
    for row in rows:
        if row["in"] != row["kept"] + sum(row["dropped"].values()):
            dropped = sum(row["dropped"].values())
            raise ValueError(f"{row['step']}: {row['in']} came in, {row['kept']} kept + {dropped} dropped")
        if before is not None and row["in"] != before:
            raise ValueError(f"{row['step']}: {row['in']} came in, the step before kept {before}")
        before = row["kept"]


def _fates(step: str, rows: Sequence[LedgerRow]) -> dict[str, str | None]:
    """Returns clip -> why it ends in this step, or None."""
    fates: dict[str, str | None] = {}
    for row in rows:
        reason = row.reason
        if step == "build_conversations" and reason is None and not row.detail.get("sets", {}).get("rounds"):
            reason = "incomplete"
        if step == "segment_faces":
            clip = row.item_id.rpartition("-")[0]
            fates[clip] = fates.get(clip) or reason
        else:
            fates[row.item_id] = reason
    return fates


def plot_funnel(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the funnel: one bar a step, what it kept and what it dropped by reason.

    Args:
        rows: From `funnel`.
        path: Picture to write; the suffix decides the format.
    """
    from matplotlib.figure import Figure

    check_funnel(rows)
    total = max((row["in"] for row in rows), default=0) or 1
    figure = Figure(figsize=(9.5, 1.1 + 0.95 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, row in enumerate(rows):
        axes.barh(position, row["kept"], color=_KEPT, height=0.62, zorder=2)
        left, reasons = row["kept"], _grouped(row["dropped"])
        for index, count in enumerate(reasons.values()):
            axes.barh(
                position, count, left=left, color=_DROPPED[index % len(_DROPPED)], height=0.62, zorder=2
            )
            left += count
        inside = row["kept"] > 0.2 * total
        axes.text(
            row["kept"] - 0.01 * total if inside else left + 0.01 * total,
            position,
            f"{row['kept']:,}",
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else "black",
            fontweight="bold",
            zorder=3,
        )
        words = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in reasons.items())
        axes.text(0, position + 0.36, words or "nothing dropped", fontsize=8, color="#666666", va="top")
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.set_ylim(len(rows) - 0.3, -0.5)
    axes.set_xlim(0, total * 1.02)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e6e6", zorder=0)
    axes.set_xlabel("clips")
    last = rows[-1]["kept"] if rows else 0
    axes.set_title(f"{total:,} clips in, {last:,} chats out", loc="left", fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _grouped(dropped: Mapping[str, int]) -> dict[str, int]:
    """Returns the most frequent reasons, and all others as one."""
    ordered = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    named = dict(ordered[:_NAMED_REASONS])
    rest = sum(count for _, count in ordered[_NAMED_REASONS:])
    return {**named, "other reasons": rest} if rest else named
