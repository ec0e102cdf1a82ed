"""The viewer page: one self-contained HTML file to look at chats, and at what was dropped and why."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from visavis.data.config import ConversationConfig
from visavis.data.ledger import LedgerRow, read_ledger
from visavis.data.shards import Sample
from visavis.data.split import SPLITS
from visavis.files import sha256_bytes, write_atomic

_THUMBNAIL_PX = 112
_DROPPED_PX = (260, 84)
_SHOWN_FIRST = ("rounds", "history", "pair", "inpaint", "reconstruct", "natural")


def write_viewer(
    path: Path,
    config: ConversationConfig,
    summary: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    samples: Sequence[Sample],
    ledgers: Mapping[str, Path],
) -> None:
    """Writes the page; pictures are small JPEGs inside of it, and it loads nothing from anywhere.

    Args:
        path: File to write.
        config: How much to show.
        summary: What was built.
        steps: Rows of the funnel.
        samples: All samples; some of each set are shown.
        ledgers: Step -> ledger; thumbnails are looked for beside it.
    """
    chosen = {
        name: _chosen([s for s in samples if s.set == name], config.viewer_samples) for name in _SHOWN_FIRST
    }
    parts = {
        "title": _text(config.title),
        "lead": f"{summary['samples']:,} samples, {sum(summary['people'].values()):,} people. "
        "A few of each set; test samples are not hidden, so do not tune by this page.",
        "funnel": "".join(_step(row, max(row["in"] for row in steps)) for row in steps),
        "sets": _sets(summary),
        "buttons": "".join(
            f'<button data-set="{name}">{name} · {sum(summary["sets"][name].values()):,}</button>'
            for name in _SHOWN_FIRST
            if chosen[name]
        ),
        "samples": "".join(_article(sample) for name in _SHOWN_FIRST for sample in chosen[name]),
        "dropped": "".join(
            part for step, ledger in ledgers.items() for part in _dropped(step, ledger, config.viewer_dropped)
        )
        or "Nothing was dropped.",
    }
    page = (files("visavis.data") / "viewer.html").read_text(encoding="utf-8")
    # In one pass: a placeholder inside of somebody's caption stays what it is.
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)
    write_atomic(path, page.encode("utf-8", "replace"))


def _chosen(samples: list[Sample], count: int) -> list[Sample]:
    return sorted(samples, key=lambda sample: sha256_bytes(f"viewer\0{sample.id}".encode()))[:count]


def _step(row: Mapping[str, Any], total: int) -> str:
    total = max(total, 1)
    parts = [f'<b style="width:{100 * row["kept"] / total:.2f}%">{row["kept"]:,}</b>']
    for reason, count in row["dropped"].items():
        parts.append(
            f'<i style="width:{100 * count / total:.2f}%" title="{_text(_words(reason))} {count:,}"></i>'
        )
    reasons = ", ".join(f"{_words(reason)} {count:,}" for reason, count in row["dropped"].items())
    return (
        f'<div class="step"><span>{_text(row["label"])}</span><div class="bar">{"".join(parts)}</div>'
        f"<small>{_text(reasons or 'nothing dropped')}</small></div>"
    )


def _sets(summary: Mapping[str, Any]) -> str:
    head = "".join(f'<th class="n">{split}</th>' for split in SPLITS)
    rows = [
        f"<tr><td>{name}</td>"
        + "".join(f'<td class="n">{summary["sets"][name][s]:,}</td>' for s in SPLITS)
        + "</tr>"
        for name in _SHOWN_FIRST
    ]
    for name in ("clips", "people"):
        cells = "".join(f'<td class="n">{summary[name][split]:,}</td>' for split in SPLITS)
        rows.append(f"<tr><td><i>{name}</i></td>{cells}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _article(sample: Sample) -> str:
    turns = []
    for turn in sample.turns:
        parts = []
        for part in turn["content"]:
            if part["type"] == "text":
                parts.append(_text(part["text"]))
            else:
                parts.append(_image(sample.images[part["image"]], (_THUMBNAIL_PX, _THUMBNAIL_PX)))
        turns.append(f'<div class="turn {turn["role"]}">{"".join(parts)}</div>')
    return (
        f'<article data-set="{sample.set}" hidden>'
        f"<header><span>{sample.set}</span><span>{sample.split}</span></header>"
        f"{''.join(turns)}<footer>{_text(sample.id)} · {_text(', '.join(sample.people))}</footer></article>"
    )


def _dropped(step: str, ledger: Path, most: int) -> Iterator[str]:
    """Yields a block for each reason of a step."""
    by_reason: dict[str, list[LedgerRow]] = {}
    for row in read_ledger(ledger):
        if row.reason is not None:
            by_reason.setdefault(row.reason, []).append(row)
    for reason, rows in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        figures = "".join(_figure(row, ledger.parent) for row in rows[:most])
        yield (
            f"<h3>{_text(_words(reason))} <span>{len(rows):,} · {_text(_words(step))}</span></h3>"
            f'<div class="dropped">{figures}</div>'
        )


def _figure(row: LedgerRow, folder: Path) -> str:
    image = ""
    if name := row.detail.get("thumbnail"):
        image = _image(folder / str(name), _DROPPED_PX)
    facts = "; ".join(
        f"{_words(key)}: {value}" for key, value in row.detail.items() if key not in ("thumbnail", "header")
    )
    return f"<figure>{image}<figcaption>{_text(facts[:160] or row.item_id[:16])}</figcaption></figure>"


def _image(path: Path, most: tuple[int, int]) -> str:
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
    except OSError:
        return ""
    # Twice the size on the page, for dense screens.
    small.thumbnail((2 * most[0], 2 * most[1]), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img loading="lazy" alt="" src="data:image/jpeg;base64,{data}">'


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: str) -> str:
    return html.escape(value, quote=True)
