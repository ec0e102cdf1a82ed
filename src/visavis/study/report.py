"""What a study found: a table for the terminal, one HTML page, and metrics for a tracked run."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from visavis.errors import VisavisError
from visavis.evaluation.intervals import Figure
from visavis.files import write_atomic, write_json
from visavis.study.figures import Standing, Summary
from visavis.study.questions import QUESTIONS
from visavis.study.statistics import TABLE_HEAD, table_from_counts

if TYPE_CHECKING:
    from rich.table import Table

REPORT, RESULT = "report.html", "study.json"
_MORE_HEADS = ("net win", "95 % interval", "p", "alpha", "votes")
_FROM_SHARE = 7.0
"""Percent from which a part of a bar has room for its number."""


def result_table(summary: Summary, judge: str | None = None) -> Table:
    """Returns a rich table: the shares as the paper's Table 1 prints them, net win with its interval, sign test.

    Args:
        summary: The figures.
        judge: Name of a judge; None: of people.
    """
    from rich.table import Table

    standings = summary.people if judge is None else summary.judges[judge]
    title = "Votes of people" if judge is None else f"Votes of the judge {judge}"
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column(TABLE_HEAD[0])
    for name in (*_heads(summary), *_MORE_HEADS):
        table.add_column(name, justify="right", no_wrap=True)
    for row, standing in zip(_shares(standings), standings.values(), strict=True):
        table.add_row(*row, *_more(standing))
    return table


def write_results(folder: Path, summary: Summary, title: str) -> tuple[Path, Path]:
    """Writes `report.html` and `study.json`; returns both paths.

    Args:
        folder: Of the study; made if need be.
        summary: The figures.
        title: Heading of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / REPORT, report_page(summary, title))
    write_json(folder / RESULT, summary.to_dict())
    return folder / REPORT, folder / RESULT


def log_to_run(summary: Summary, files: tuple[Path, ...], *, tracking_uri: str, run_id: str) -> int:
    """Logs the figures and files of a study to a run in MLflow; returns how many figures there were.

    Raises:
        VisavisError: If there is no such run, or MLflow does not answer.
    """
    from visavis.tracking import client_for

    client = client_for(tracking_uri)
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    now = int(1000 * time.time())
    metrics = [Metric(name, value, now, 0) for name, value in summary.metrics().items()]
    try:
        client.log_batch(run_id, metrics=metrics)
        for file in files:
            client.log_artifact(run_id, str(file), "study")
    except MlflowException as error:
        raise VisavisError(
            f"run {run_id!r} takes no figures: {str(error).splitlines()[0]}",
            fix="give the id of a run in this MLflow (`visavis ui` shows them)",
        ) from None
    return len(metrics)


def report_page(summary: Summary, title: str) -> str:
    """Returns the page: self-contained HTML, light or dark as the reader's system is."""
    ours = _safe(summary.system)
    facts = [f"{summary.raters} raters"] if summary.raters else []
    if summary.excluded:
        facts.append(f"{summary.excluded} more left out: too many failed attention checks")
    if summary.excluded_judges:
        facts.append(f"judges left out for the same reason: {', '.join(summary.excluded_judges)}")
    parts = [
        f"<header><h1>{_safe(title)}</h1><p>{_safe(' · '.join(facts))}</p><p>Two pictures at a time, blind, sides "
        f"shuffled. Wins are those of <b>{ours}</b>. An interval holds the true value in 95 of 100 such studies.</p>"
        "</header>"
    ]
    if summary.people:
        tiles = "".join(_tile(name, standing) for name, standing in summary.people.items())
        parts += [f"<section class='tiles'>{tiles}</section>", _section("People", summary, summary.people)]
    else:
        parts.append("<p>No person's vote counts so far.</p>")
    parts += [
        _section(f"Judge {name}", summary, standings, summary.with_people.get(name, {}))
        for name, standings in summary.judges.items()
    ]
    style = "".join(
        resources.files(package).joinpath("report.css").read_text()
        for package in ("visavis.evaluation", "visavis.study")
    )
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{_safe(title)}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{style}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _tile(name: str, standing: Standing) -> str:
    wins = standing.net.ci95 is not None and standing.net.ci95[0] > 0
    loses = standing.net.ci95 is not None and standing.net.ci95[1] < 0
    verdict = "better" if wins else "worse" if loses else "undecided"
    return (
        f"<div class='tile'><span>{_safe(_label(name))}: net win</span><b>{_signed(standing.net.value)}</b>"
        f"<small>{_interval(standing.net, signed=True)}</small>"
        f"<small>{verdict}, {standing.counts.total} votes</small></div>"
    )


def _section(
    heading: str,
    summary: Summary,
    standings: Mapping[str, Standing],
    with_people: Mapping[str, float] | None = None,
) -> str:
    bars = "".join(
        f"<b>{_safe(_label(name))}</b>{_stack(standing)}<small>{_reach(name, standing, summary)}</small>"
        for name, standing in standings.items()
    )
    key = "".join(
        f"<span class='{kind}'>{_safe(words)}</span>"
        for kind, words in zip(("win", "tie", "lose"), _key(summary), strict=True)
    )
    heads = [TABLE_HEAD[0], *_heads(summary), *_MORE_HEADS]
    rows: list[tuple[str, ...]] = [
        (*row, *_more(standing)) for row, standing in zip(_shares(standings), standings.values(), strict=True)
    ]
    if with_people:
        heads.append("with people")
        rows = [(*row, _number(with_people.get(name))) for name, row in zip(standings, rows, strict=True)]
    notes = (
        "Net win: wins minus losses, as a share of all votes. p: sign test without ties. Alpha: agreement of the "
        "raters (Krippendorff), 1 if they always agree, 0 if as often as by chance."
    )
    return (
        f"<section><h2>{_safe(heading)}</h2><div class='key'>{key}</div><div class='bars'>{bars}</div>"
        f"{_table(heads, rows)}<p>{notes}</p>{_ratings(standings)}</section>"
    )


def _stack(standing: Standing) -> str:
    counts, parts = standing.counts, []
    win, lose, tie = _shares({"": standing})[0][1:]
    rows = (("win", counts.win, win), ("tie", counts.tie, tie), ("lose", counts.lose, lose))
    for kind, count, printed in rows:
        share = 100 * count / counts.total
        words = printed if share >= _FROM_SHARE else ""
        parts.append(f"<i class='{kind}' style='width:{share:.2f}%' title='{kind}: {count}'>{words}</i>")
    return f"<div class='stack'>{''.join(parts)}</div>"


def _reach(name: str, standing: Standing, summary: Summary) -> str:
    wanted = summary.wanted.get(name)
    votes = f"{standing.counts.total} of {wanted} votes" if wanted else f"{standing.counts.total} votes"
    return (
        f"{votes} · wins {_interval(standing.win)} · ties {_interval(standing.tie)} · "
        f"losses {_interval(standing.lose)}"
    )


def _ratings(standings: Mapping[str, Standing]) -> str:
    systems = sorted({name for standing in standings.values() for name in standing.ratings})
    if len(systems) < 3:
        return ""
    rows = [
        (system, *(_points(standing.ratings.get(system)) for standing in standings.values()))
        for system in systems
    ]
    heads = ["system", *(_label(name) for name in standings)]
    words = "Bradley-Terry: 400 points more are odds of ten to one; the mean is 1000."
    return f"<h3>Ratings</h3><p>{words}</p>{_table(heads, rows)}"


def _table(heads: list[str], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{_safe(name)}</th>" for name in heads)
    body = "".join(
        f"<tr><td>{_safe(row[0])}</td>{''.join(f'<td class=n>{_safe(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>"


def _shares(standings: Mapping[str, Standing]) -> list[tuple[str, str, str, str]]:
    return table_from_counts({name: standing.counts for name, standing in standings.items()})


def _heads(summary: Summary) -> tuple[str, ...]:
    wins = TABLE_HEAD[1] if summary.system == "ours" else f"{summary.system} wins"
    return (wins, *TABLE_HEAD[2:])


def _key(summary: Summary) -> tuple[str, str, str]:
    return f"{summary.system} better", "no difference", f"{summary.system} worse"


def _more(standing: Standing) -> tuple[str, str, str, str, str]:
    return (
        _signed(standing.net.value),
        _interval(standing.net, signed=True, unit=""),
        "–" if standing.p_value is None else f"{standing.p_value:.2g}",
        _number(standing.agreement),
        str(standing.counts.total),
    )


def _label(name: str) -> str:
    return QUESTIONS[name].label if name in QUESTIONS else name


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f} %"


def _interval(figure: Figure, *, signed: bool = False, unit: str = " %") -> str:
    if figure.ci95 is None:
        return "–"
    low, high = (f"{100 * end:+.1f}" if signed else f"{100 * end:.1f}" for end in figure.ci95)
    return f"{low} to {high}{unit}"


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
