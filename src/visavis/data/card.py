"""The data card: what the conversations are, where they come from, and what to keep in mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visavis.data.config import ConversationConfig
from visavis.data.split import SPLITS
from visavis.files import write_atomic

_SETS = {
    "natural": "any picture → the same picture",
    "reconstruct": "picture, portrait or close-up → the same",
    "inpaint": "masked face + caption → the portrait it was cut from",
    "pair": "face of one frame + caption → portrait of the same person in the other frame",
    "rounds": "caption with two names → picture; then a close-up of each by name",
    "history": "a chat with more rounds, ways back, undo and corrections → what its whole history says",
}


def write_card(
    path: Path,
    config: ConversationConfig,
    summary: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    licences: Mapping[str, Mapping[str, int]],
) -> None:
    """Writes the card as Markdown.

    Args:
        path: File to write.
        config: What was asked for.
        summary: What was built.
        steps: Rows of the funnel.
        licences: "clips" and "pictures" -> licence -> how many.
    """
    parts = [
        f"# {config.title}",
        f"{summary['samples']:,} samples of {sum(summary['clips'].values()):,} clips of two people, "
        f"{sum(summary['people'].values()):,} people in all. Made by visavis; `viewer.html` shows examples, "
        "and what was dropped.",
        "## Sets",
        _table(
            ["set", "what it asks", *SPLITS],
            [[name, _SETS[name], *(f"{summary['sets'][name][s]:,}" for s in SPLITS)] for name in _SETS],
        ),
        "## Splits",
        _table(
            ["", *SPLITS],
            [
                ["clips", *(f"{summary['clips'][split]:,}" for split in SPLITS)],
                ["people", *(f"{summary['people'][split]:,}" for split in SPLITS)],
                ["wanted share of clips", *(f"{getattr(config.shares, split):.0%}" for split in SPLITS)],
            ],
        ),
        _split_words(config, summary),
        "## Funnel",
        _table(
            ["step", "in", "kept", "dropped"],
            [[row["label"], f"{row['in']:,}", f"{row['kept']:,}", _reasons(row["dropped"])] for row in steps],
        ),
        "## Chats in three rounds",
        _rounds_words(summary),
        "## Licences",
        _table(
            ["of", "licence", "items"],
            [[of, _cell(name), f"{n:,}"] for of, counts in licences.items() for name, n in counts.items()],
        ),
        "## Keep in mind",
        "- Captions are what a model said, rewritten by rules; they can be wrong.\n"
        "- Names are drawn at random and say nothing about the people.\n"
        "- Who is the same person is what ArcFace says; somebody it does not recognise again can be in two "
        "splits.\n"
        "- Masks are a model's; a little of hair or of the background can be wrong.\n"
        "- `splits.json` lists every person's clips and pictures: with it a person can be taken out.",
    ]
    write_atomic(path, "\n\n".join(parts) + "\n")


def _split_words(config: ConversationConfig, summary: Mapping[str, Any]) -> str:
    lost = summary["counts"]["dropped"].get("people_in_two_splits", 0)
    closest, used = summary["closest_across_splits"], summary["same_person"]
    if used is None:
        words = "Faces could not be told apart well enough to link people across clips. "
    else:
        words = f"Faces with an ArcFace cosine of {used:g} or more are one person"
        raised = used > config.same_person
        words += f" (raised from {config.same_person:g} to keep the splits divisible). " if raised else ". "
    words += (
        "Clips that share people, or come from one recording, stay together. "
        f"People in two splits: {summary['people_in_two_splits']}. "
        f"Clips left out because they would have joined two splits: {lost}."
    )
    return words + (f" Most alike faces across splits: {closest:.3f}." if closest is not None else "")


def _rounds_words(summary: Mapping[str, Any]) -> str:
    rounds = summary["rounds"]
    total = sum(rounds["styles"].values())
    if not total:
        return "None."
    styles = ", ".join(
        f"{name.replace('_', ' ')} {count / total:.0%}" for name, count in rounds["styles"].items()
    )
    named, asked = rounds["left_first"] / total, rounds["left_asked_first"] / total
    return (
        f"How captions tell the two apart: {styles}. The left person is named first in {named:.0%} and asked "
        f"for first in {asked:.0%} of them."
    )


def _reasons(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in dropped.items()) or "–"


def _cell(text: str) -> str:
    """Keeps foreign text inside of its cell, and inside of UTF-8."""
    plain = text.encode("utf-8", "replace").decode()
    return plain.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)
