"""Plots in the quiet style: training curves, and the scorecard's figures with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from visavis.evaluation.intervals import Figure
from visavis.evaluation.labels import format_interval, format_number, is_cosine, is_detail, is_share, label_of
from visavis.evaluation.scorecard import Scorecard
from visavis.evaluation.style import ACCENT, CARD, INK, LINE, PAPER, SERIES, SOFT, hex_of, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Plot

Curve = Sequence[tuple[float, float]]
"""Points (step, value)."""

_SHARES = "shares of items"
_COSINES = "ArcFace similarity"


def training_curves(panels: Mapping[str, Mapping[str, Curve]], *, columns: int = 3) -> Plot:
    """Draws a panel for each title and in it a line for each series: faint as measured, strong when smoothed.

    Args:
        panels: Title to series name to points. A panel whose values are positive and span more than a factor of
            20 has a logarithmic axis.
        columns: Panels in a row.
    """
    from matplotlib.figure import Figure as Plot

    columns = max(1, min(columns, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    plot = Plot(figsize=(3.9 * columns, 2.7 * rows), dpi=150, layout="constrained", facecolor=hex_of(PAPER))
    for index, (title, series) in enumerate(panels.items()):
        axes = plot.add_subplot(rows, columns, index + 1)
        _quiet(axes)
        axes.set_title(title, loc="left", fontsize=10, color=hex_of(INK))
        axes.set_xlabel("step", fontsize=8, color=hex_of(SOFT))
        for colour, (name, points) in zip(SERIES * 9, series.items(), strict=False):
            if len(points):
                _curve(axes, np.asarray(points, dtype=np.float64), name, colour)
        values = [value for points in series.values() for _, value in points]
        if values and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=hex_of(INK))
    return plot


def scorecard_plot(scorecard: Scorecard) -> Plot:
    """Draws the shares and similarities of a scorecard as dots with their 95 % intervals; chance is a tick.

    Figures on other scales (dB, CLIP score) stand in the table; on one axis with these they would be unreadable. So do
    details such as slices by attribute.
    """
    from matplotlib.figure import Figure as Plot

    groups: dict[str, list[tuple[str, Figure]]] = {_SHARES: [], _COSINES: []}
    for path, figure in scorecard.figures().items():
        if figure.value is None or is_detail(path):
            continue
        if is_share(path):
            groups[_SHARES].append((path, figure))
        elif is_cosine(path):
            groups[_COSINES].append((path, figure))
    shown = {title: figures for title, figures in groups.items() if figures}
    lengths = [len(figures) for figures in shown.values()] or [1]
    plot = Plot(
        figsize=(9, 0.30 * sum(lengths) + 1.1 * len(lengths)),
        dpi=150,
        layout="constrained",
        facecolor=hex_of(PAPER),
    )
    all_axes = plot.subplots(len(lengths), 1, height_ratios=lengths, squeeze=False)[:, 0]
    for axes, (title, figures) in zip(all_axes, shown.items(), strict=False):
        _dots(axes, title, figures)
    return plot


def _dots(axes: Axes, title: str, figures: Sequence[tuple[str, Figure]]) -> None:
    """Draws one group of figures, from top to bottom."""
    _quiet(axes)
    axes.grid(axis="x", color=hex_of(LINE), linewidth=0.8)
    axes.set_title(title, loc="left", fontsize=10, color=hex_of(INK))
    for place, (path, figure) in enumerate(figures):
        value = figure.value or 0.0
        low, high = figure.ci95 or (value, value)
        axes.plot(
            [low, high], [place, place], color=SERIES[0], linewidth=5, alpha=0.28, solid_capstyle="round"
        )
        axes.plot(value, place, "o", color=SERIES[0], markersize=6)
        if figure.chance is not None:
            axes.plot(figure.chance, place, "|", color=SERIES[1], markersize=12, markeredgewidth=1.8)
        words = f"{format_number(path, figure.value)}   [{format_interval(path, figure)}]"
        axes.annotate(
            words,
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=hex_of(SOFT),
        )
    labels = [f"{label_of(path)}  ({path.split('.')[0]})" for path, _ in figures]
    axes.set_yticks(range(len(figures)), labels, fontsize=8.5, color=hex_of(INK))
    axes.set_ylim(len(figures) - 0.4, -0.6)
    if title == _SHARES:
        lowest = min((figure.ci95[0] for _, figure in figures if figure.ci95), default=0.0)
        axes.set_xlim(min(lowest, 0.0) - 0.02, 1.02)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        if any(figure.chance is not None for _, figure in figures):
            axes.plot([], [], "|", color=SERIES[1], markersize=10, markeredgewidth=1.8, label="chance")
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, borderaxespad=0)


def _curve(axes: Axes, points: np.ndarray, name: str, colour: str) -> None:
    steps, values = points[:, 0], points[:, 1]
    if len(values) < 30:
        axes.plot(steps, values, color=colour, linewidth=1.6, label=name, marker="o", markersize=2.5)
        return
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.25)
    axes.plot(steps, _smooth(values), color=colour, linewidth=1.7, label=name)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Returns an average over a window of a twentieth of the curve, shortened at its ends."""
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    # the window shrinks evenly on both sides, so that the ends are not dragged inwards
    reach = np.minimum(half, np.minimum(index, len(values) - 1 - index))
    return (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)


def _quiet(axes: Axes) -> None:
    axes.set_facecolor(hex_of(CARD))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(hex_of(LINE))
    axes.tick_params(labelsize=8, color=hex_of(tint(ACCENT, 0.3)), labelcolor=hex_of(SOFT), length=3)
    axes.grid(axis="y", color=hex_of(LINE), linewidth=0.6)
    axes.set_axisbelow(True)
