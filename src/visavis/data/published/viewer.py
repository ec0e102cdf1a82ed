"""The viewer page: one self-contained HTML file to look at chats, and at what was dropped and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from visavis.data.config import ConversationConfig
from visavis.data.ledger import LedgerRow, read_ledger
from visavis.data.published.origins import read_origins
from visavis.data.published.shards import read_index
from visavis.data.published.viewer_chats import chat_card, choose, image, read_chosen, text, words
from visavis.data.split import SPLITS
from visavis.files import read_json, write_atomic

VIEWER_NAME = "viewer.html"
_DROPPED_PX = (520, 168)
_SHOWN_FIRST = ("rounds", "history", "pair", "inpaint", "reconstruct", "natural")
_ATTRIBUTES = {
    "styles": "how captions tell the two apart",
    "named_first": "who is named first",
    "asked_first": "who is asked for first",
}


def write_viewer(folder: Path, config: ConversationConfig, ledgers: Mapping[str, Path]) -> None:
    """Writes `viewer.html`; pictures are small JPEGs inside of it, and it loads nothing from anywhere.

    Args:
        folder: Data set, validated; its page is replaced.
        config: How much to show.
        ledgers: Step -> ledger of what was dropped; thumbnails are looked for beside it.
    """
    summary, steps, report = (
        read_json(folder / f"{name}.json") for name in ("summary", "funnel", "validation")
    )
    rows = read_index(folder)
    origins = {row["item"]: row for row in read_origins(folder)}
    samples = read_chosen(folder, rows, choose(rows, config.viewer_samples))
    samples.sort(key=lambda sample: _rank(sample["set"]))
    sets = sorted({sample["set"] for sample in samples}, key=_rank)
    dropped = [reason for step, ledger in ledgers.items() for reason in _by_reason(step, ledger)]
    parts = {
        "title": text(config.title),
        "lead": f"{summary['samples']:,} samples, {sum(summary['people'].values()):,} people. "
        "A few of each set; test samples are not hidden, so do not tune by this page.",
        "funnel": "".join(_step(row, max(row["in"] for row in steps)) for row in steps),
        "sets": _sets(summary),
        "verdict": "passed" if report["passed"] else "failed",
        "checks": "".join(_check(check) for check in report["checks"]),
        "balance": _balance(report["figures"]["balance"]),
        "buttons": "".join(
            _chip("set", name, words(name), sum(summary["sets"].get(name, {}).values())) for name in sets
        ),
        "splits": _options(sorted({sample["split"] for sample in samples}, key=SPLITS.index)),
        "styles": _options(sorted({str(sample["tags"].get("style") or "") for sample in samples} - {""})),
        "samples": "".join(chat_card(sample, origins.get(sample["clip_id"])) for sample in samples),
        "reasons": "".join(_chip("reason", one.key, words(one.reason), len(one.rows)) for one in dropped),
        "dropped": "".join(part for one in dropped for part in one.figures(config.viewer_dropped))
        or "Nothing was dropped.",
    }
    page = (files("visavis.data.published") / VIEWER_NAME).read_text(encoding="utf-8")
    # In one pass: a placeholder inside of somebody's caption stays what it is.
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)
    write_atomic(folder / VIEWER_NAME, page.encode("utf-8", "replace"))


def _rank(name: str) -> tuple[int, str]:
    return (_SHOWN_FIRST.index(name) if name in _SHOWN_FIRST else len(_SHOWN_FIRST), name)


def _chip(kind: str, value: str, label: str, count: int) -> str:
    return f'<button data-{kind}="{text(value)}" aria-pressed="false">{text(label)} <small>{count:,}</small></button>'


def _options(values: Sequence[str]) -> str:
    return "".join(f'<option value="{text(value)}">{text(words(value))}</option>' for value in values)


def _step(row: Mapping[str, Any], total: int) -> str:
    total = max(total, 1)
    parts = [f'<b style="width:{100 * row["kept"] / total:.2f}%"></b>']
    dropped = sorted(row["dropped"].items(), key=lambda item: (-item[1], item[0]))
    for reason, count in dropped:
        parts.append(
            f'<i style="width:{100 * count / total:.2f}%" title="{text(words(reason))} {count:,}"></i>'
        )
    reasons = ", ".join(f"{words(reason)} {count:,}" for reason, count in dropped)
    return (
        f'<div class="step"><span>{text(row["label"])}</span><strong>{row["kept"]:,}</strong>'
        f'<div class="bar">{"".join(parts)}</div><small>{text(reasons or "nothing dropped")}</small></div>'
    )


def _sets(summary: Mapping[str, Any]) -> str:
    rows = [
        (name, summary["sets"][name])
        for name in sorted(summary["sets"], key=_rank)
        if any(summary["sets"][name].values())
    ]
    rows += [(f"<i>{name}</i>", summary[name]) for name in ("clips", "people")]
    return _table("", ((label, [f"{counts[split]:,}" for split in SPLITS]) for label, counts in rows))


def _table(corner: str, rows: Iterator[tuple[str, list[str]]]) -> str:
    head = "".join(f"<th>{split}</th>" for split in SPLITS)
    body = "".join(
        f"<tr><td>{label}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for label, cells in rows
    )
    return f"<table><tr><th>{corner}</th>{head}</tr>{body}</table>"


def _check(check: Mapping[str, Any]) -> str:
    state = check["level"] if check["found"] else "fine"
    found = (
        f" <small>{check['found']:,}: {text('; '.join(check['examples']))}</small>" if check["found"] else ""
    )
    return f'<li class="{text(state)}">{text(check["words"])}{found}</li>'


def _balance(figures: Mapping[str, Any]) -> str:
    tables = []
    for attribute, label in _ATTRIBUTES.items():
        values = sorted({value for split in SPLITS for value in figures[split][attribute]})
        if values:
            rows = (
                (text(words(value)), [_share(figures[s][attribute], value) for s in SPLITS])
                for value in values
            )
            tables.append(_table(label, rows))
    names = ", ".join(f"{figures[split]['names']['different']:,} in {split}" for split in SPLITS)
    return (
        f"{''.join(tables)}<p>Different names: {names}.</p>" if tables else "<p>No chats in three rounds.</p>"
    )


def _share(counts: Mapping[str, int], value: str) -> str:
    total = sum(counts.values())
    return f"{counts.get(value, 0) / total:.0%}" if total else "–"


@dataclass(frozen=True)
class _Reason:
    """What one step dropped for one reason; thumbnails are named from `folder` on."""

    step: str
    reason: str
    rows: list[LedgerRow]
    folder: Path

    @property
    def key(self) -> str:
        return f"{self.step}/{self.reason}"

    def figures(self, most: int) -> Iterator[str]:
        for row in self.rows[:most]:
            yield self._figure(row)

    def _figure(self, row: LedgerRow) -> str:
        name = row.detail.get("thumbnail")
        picture = image(self.folder / str(name), _DROPPED_PX) if name else ""
        facts = "; ".join(
            f"{words(key)}: {value}"
            for key, value in row.detail.items()
            if key not in ("thumbnail", "header")
        )
        return (
            f'<figure data-reason="{text(self.key)}">{picture or "<i></i>"}<figcaption><b>{text(words(self.reason))}'
            f"</b> · {text(words(self.step))}<br>{text(facts[:160] or row.item_id[:16])}</figcaption></figure>\n"
        )


def _by_reason(step: str, ledger: Path) -> list[_Reason]:
    """Returns what a step dropped, the most frequent reason first."""
    found: dict[str, list[LedgerRow]] = {}
    for row in read_ledger(ledger):
        if row.reason is not None:
            found.setdefault(row.reason, []).append(row)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [_Reason(step, reason, rows, ledger.parent) for reason, rows in ordered]
