"""The report of a run: one page that holds everything, pictures included."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from PIL import Image

from visavis.evaluation.intervals import Figure
from visavis.evaluation.labels import (
    format_interval,
    format_number,
    is_cosine,
    is_share,
    label_of,
)
from visavis.evaluation.scorecard import OPTIONAL, SECTIONS, Scorecard

TILES = (
    "rounds.right_person_accuracy",
    "rounds.right_person_accuracy_undescribed",
    "identity.arcface_single_round",
    "identity.margin",
    "reconstruction.psnr_db",
    "alignment.clip_score",
)
"""Figures that open the page."""

_SECTION_WORDS = {
    "rounds": (
        "Rounds 2 and 3",
        "Does a close-up by name show the person named, and not the other one of the chat?",
    ),
    "identity": (
        "Identity",
        "Is the person in a personalised picture the one whose face was given? Cosines of ArcFace.",
    ),
    "reconstruction": ("Reconstruction", "What encoder and detokenizer give back of a true picture."),
    "alignment": ("Alignment", "Does the picture show what the words say? Cosines of CLIP on two scales."),
    "retention": (
        "Retention",
        "Asked for the same person again and again in other words, does the face of round 1 stay? Cosines of ArcFace.",
    ),
    "groups": (
        "Groups of prompts",
        "What is kept of a face when the words are easy, when they tell of other looks, and when they change it?",
    ),
}
_FOLDS = {
    "rounds.slices.": "Right-person accuracy by slice",
    "rounds.confusion.": "Whom close-ups show, by where the person asked for stood in round 1",
    "identity.slices.": "ArcFace by what the data set says of the person",
}
"""Tables that open at a click, by the beginning of their paths."""

_BAR = 150


@dataclass(frozen=True)
class Verdict:
    """What the gate said of the model.

    Attributes:
        passed: Whether all rules hold.
        rules: Metric, whether its rule holds, and why.
        words: What became of the version.
        champion: Version that it was compared with; empty if there was none.
        differences: Candidate minus champion by path, paired by item.
    """

    passed: bool
    rules: Sequence[tuple[str, bool, str]]
    words: str = ""
    champion: str = ""
    differences: Mapping[str, Figure] = field(default_factory=dict)


def write_report(
    title: str,
    scorecard: Scorecard,
    pictures: Mapping[str, Image.Image],
    *,
    verdict: Verdict | None = None,
    funnel: Mapping[str, Any] | None = None,
    timings: Mapping[str, Any] | None = None,
    look_next: Sequence[tuple[str, str]] = (),
) -> str:
    """Returns the page: self-contained HTML, light or dark as the reader's system is.

    Args:
        title: Heading.
        scorecard: Its figures, with their intervals.
        pictures: Heading to picture.
        verdict: What the gate said.
        funnel: `funnel.json`: `{"steps": [{"step", "in", "kept", "dropped": {reason: count}}]}`.
        timings: `timings.json`: `{"steps": [{"step", "status", "seconds", "peak_rss_mb"}], "seconds"}`.
        look_next: What to do next: words and a command or place.
    """
    figures = scorecard.figures()
    facts = " · ".join(f"{name} {value}" for name, value in scorecard.about.items())
    parts = [
        f"<header><h1>{_safe(title)}</h1><p>{_safe(facts)}</p>"
        "<p>All figures are on people that the run was not trained on. An interval holds the true value in 95 of "
        "100 such evaluations.</p></header>",
        f"<section class='tiles'>{''.join(_tile(path, figures[path]) for path in TILES if path in figures)}</section>",
        _verdict(verdict) if verdict else "",
        *(
            f"<section><h2>{_safe(name)}</h2><img src='{_inline(image)}' alt='{_safe(name)}' loading='lazy'></section>"
            for name, image in pictures.items()
        ),
        _scorecard(scorecard, figures),
        _funnel(funnel) if funnel else "",
        _timings(timings) if timings else "",
        _look_next(look_next) if look_next else "",
    ]
    style = resources.files(__package__).joinpath("report.css").read_text()
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{_safe(title)}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{style}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def summary(scorecard: Scorecard, verdict: Verdict | None = None) -> str:
    """Returns the opening figures and what became of the model in Markdown: the description of a run in a tracker."""
    figures = scorecard.figures()
    rows = [
        f"| {label_of(path)} | {format_number(path, figure.value)} | {format_interval(path, figure)} | {figure.n} |"
        for path in TILES
        if (figure := figures.get(path))
    ]
    table = ["| figure | value | 95 % interval | n |", "| --- | ---: | ---: | ---: |", *rows]
    opening = [f"{_head(verdict)}. {verdict.words}".strip(), ""] if verdict else []
    return "\n".join([*opening, *table])


def _head(verdict: Verdict) -> str:
    return "The model passed the gate" if verdict.passed else "The gate refused the model"


def _tile(path: str, figure: Figure) -> str:
    chance = "" if figure.chance is None else f", chance {format_number(path, figure.chance)}"
    return (
        f"<div class='tile'><span>{_safe(label_of(path))}</span><b>{format_number(path, figure.value)}</b>"
        f"<small>{format_interval(path, figure)}</small><small>n = {figure.n}{chance}</small></div>"
    )


def _verdict(verdict: Verdict) -> str:
    rows = "".join(
        f"<tr><td class='{'pass' if passed else 'fail'}'>{'pass' if passed else 'FAIL'}</td>"
        f"<td title='{_safe(metric)}'>{_safe(label_of(metric).removeprefix('· '))}</td>"
        f"<td class='words'>{_safe(reason)}</td></tr>"
        for metric, passed, reason in sorted(verdict.rules, key=lambda rule: rule[1])
    )
    parts = [
        f"<section><h2>{_head(verdict)}</h2><p>{_safe(verdict.words)}</p>",
        f"<div class='scroll'><table>{rows}</table></div>",
    ]
    if verdict.champion and verdict.differences:
        parts.append(
            f"<h3>Since champion {_safe(verdict.champion)}</h3><p>This model minus the champion, item by item on the "
            "same items; an interval that holds 0 says that the difference may be chance.</p>"
            f"{_differences(verdict.differences)}"
        )
    return "".join(parts) + "</section>"


def _differences(differences: Mapping[str, Figure]) -> str:
    head = "<tr><th>figure</th><th>difference</th><th>95 % interval</th><th></th><th>n</th></tr>"
    rows = "".join(
        f"<tr><td title='{_safe(path)}'>{_safe(label_of(path).removeprefix('· '))}</td>"
        f"<td class='n'>{_signed(path, figure)}</td><td class='n'>{format_interval(path, figure)}</td>"
        f"<td>{_change(figure)}</td><td class='n'>{figure.n}</td></tr>"
        for path, figure in differences.items()
    )
    return f"<div class='scroll'><table class='figures'>{head}{rows}</table></div>"


def _signed(path: str, figure: Figure) -> str:
    sign = "+" if figure.value is not None and figure.value > 0 else ""
    return f"{sign}{format_number(path, figure.value)}"


def _change(figure: Figure) -> str:
    """Returns "better" or "worse" where the interval leaves no doubt; more is better in all that is compared."""
    if figure.ci95 is None or figure.ci95[0] <= 0 <= figure.ci95[1]:
        return "no clear change"
    return "<b class='pass'>better</b>" if figure.ci95[0] > 0 else "<b class='fail'>worse</b>"


def _scorecard(scorecard: Scorecard, figures: Mapping[str, Figure]) -> str:
    body = []
    for section in sorted(SECTIONS, key=list(_SECTION_WORDS).index):
        heading, words = _SECTION_WORDS[section]
        own = {path: figure for path, figure in figures.items() if path.startswith(f"{section}.")}
        if section in OPTIONAL:
            own = {path: figure for path, figure in own.items() if figure.n}
            if not own:
                continue
        rows = _table({path: figure for path, figure in own.items() if not path.startswith(tuple(_FOLDS))})
        body.append(f"<h3>{heading}</h3><p>{_safe(words)}</p>{rows}")
        for start, summary in _FOLDS.items():
            if fold := {path: figure for path, figure in own.items() if path.startswith(start)}:
                body.append(f"<details><summary>{summary}</summary>{_table(fold)}</details>")
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in scorecard.counts.items())
    policies = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in scorecard.policies.items())
    notes = f"<p>Scored: {_safe(counts)}. Seed {scorecard.seed}. Policies: {_safe(policies)}.</p>"
    return f"<section><h2>Scorecard</h2>{''.join(body)}{notes}</section>"


def _table(figures: Mapping[str, Figure]) -> str:
    head = "<tr><th>figure</th><th>value</th><th>95 % interval</th><th></th><th>n</th></tr>"
    rows = "".join(_row(path, figure) for path, figure in figures.items())
    return f"<div class='scroll'><table class='figures'>{head}{rows}</table></div>"


def _row(path: str, figure: Figure) -> str:
    return (
        f"<tr><td title='{_safe(path)}'>{_safe(label_of(path).removeprefix('· '))}</td>"
        f"<td class='n'>{format_number(path, figure.value)}</td><td class='n'>{format_interval(path, figure)}</td>"
        f"<td>{_bar(path, figure)}</td><td class='n'>{figure.n}</td></tr>"
    )


def _bar(path: str, figure: Figure) -> str:
    """Returns a small drawing of the interval on 0..1 for shares and on -1..1 for similarities, else nothing."""
    share, similarity = is_share(path), is_cosine(path)
    if figure.value is None or not (share or similarity):
        return ""

    def at(value: float) -> float:
        position = value if share else (value + 1) / 2
        return 4 + (_BAR - 8) * min(max(position, 0.0), 1.0)

    low, high = figure.ci95 or (figure.value, figure.value)
    mark = figure.chance if share else 0.0
    tick = (
        "" if mark is None else f"<line class='mark' x1='{at(mark):.1f}' x2='{at(mark):.1f}' y1='1' y2='15'/>"
    )
    return (
        f"<svg width='{_BAR}' height='16' aria-hidden='true'><line class='axis' x1='4' x2='{_BAR - 4}' y1='8' y2='8'/>"
        f"<line class='interval' x1='{at(low):.1f}' x2='{at(high):.1f}' y1='8' y2='8'/>{tick}"
        f"<circle cx='{at(figure.value):.1f}' cy='8' r='3.5'/></svg>"
    )


def _funnel(funnel: Mapping[str, Any]) -> str:
    rows = []
    for step in funnel["steps"]:
        share = 100 * step["kept"] / step["in"] if step["in"] else 0
        dropped = sorted(step["dropped"].items(), key=lambda item: -item[1])
        reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in dropped) or "none"
        rows.append(
            f"<tr><td>{_safe(step['step'].replace('_', ' '))}</td><td class='n'>{step['in']:,}</td>"
            f"<td class='n'>{step['kept']:,}</td><td><span class='meter'><i style='width:{share:.1f}%'></i></span></td>"
            f"<td class='words'>{_safe(reasons)}</td></tr>"
        )
    head = "<tr><th>step</th><th>in</th><th>kept</th><th></th><th>dropped, by reason</th></tr>"
    return (
        "<section><h2>Funnel</h2><p>Nothing is lost on the way: in = kept + dropped at every step.</p>"
        f"<div class='scroll'><table>{head}{''.join(rows)}</table></div></section>"
    )


def _timings(timings: Mapping[str, Any]) -> str:
    longest = max((step["seconds"] for step in timings["steps"]), default=0.0) or 1.0
    rows = "".join(
        f"<tr><td>{_safe(step['step'].replace('_', ' '))}</td><td class='n'>{step['seconds']:.1f} s</td>"
        f"<td><span class='meter'><i style='width:{100 * step['seconds'] / longest:.1f}%'></i></span></td>"
        f"<td class='n'>{step['peak_rss_mb']:,.0f} MB</td><td class='words'>{_safe(str(step['status']))}</td></tr>"
        for step in timings["steps"]
    )
    head = "<tr><th>step</th><th>time</th><th></th><th>peak memory</th><th></th></tr>"
    return (
        f"<section><h2>Time</h2><p>{timings['seconds']:,.0f} seconds in all.</p>"
        f"<div class='scroll'><table>{head}{rows}</table></div></section>"
    )


def _look_next(places: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<li>{_safe(words)}<code>{_safe(place)}</code></li>" for words, place in places)
    return f"<section><h2>Where to look next</h2><ul>{rows}</ul></section>"


def _safe(text: str) -> str:
    return html.escape(text, quote=True)


def _inline(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
