"""The data card: what the conversations are, where they come from, and what to keep in mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from visavis.data.config import ConversationConfig
from visavis.data.published.dataset import read_dataset
from visavis.data.published.origins import read_origins
from visavis.data.split import SPLITS
from visavis.files import read_json, write_atomic

CARD_NAME, README_NAME = "card.md", "README.md"
_YAML_KINDS = {"Json": "json", "Image": "image", "Value": "string"}
_SETS = {
    "natural": "any picture → the same picture",
    "reconstruct": "picture, portrait or close-up → the same",
    "inpaint": "head cut out of a portrait + caption → that portrait",
    "pair": "head cut out of the portrait of one frame + caption → the portrait of the other frame",
    "rounds": "caption with two names → picture; then a close-up of each by name",
    "history": "longer chats: back to the first picture, undo, corrections",
}
_FILES = """\
Shards are plain WebDataset; `index.parquet` has a row for each sample; `dataset.json` has the sha256 of every file.
No code of ours is needed to read them:

```python
import webdataset
from datasets import load_dataset

samples = load_dataset("path/of/this/folder", split="train")  # as README.md describes it
index = load_dataset("parquet", data_files="index.parquet")
samples = webdataset.WebDataset("train-000000.tar", shardshuffle=False).decode("rgb8")
```"""


def write_card(folder: Path, config: ConversationConfig) -> None:
    """Writes `card.md` from what the folder's other files say, and the same as `README.md` for Hugging Face.

    `README.md` begins with what `datasets.load_dataset(folder)` must know: the files of the splits and the fields
    of a sample.

    Args:
        folder: Data set with a manifest, validated; its card is replaced.
        config: What was asked for.
    """
    summary, steps = read_json(folder / "summary.json"), read_json(folder / "funnel.json")
    parts = [
        f"# {config.title}",
        f"{summary['samples']:,} samples of {sum(summary['clips'].values()):,} clips of two people, "
        f"{sum(summary['people'].values()):,} people in all. Made by visavis; `viewer.html` shows examples, "
        "and what was dropped.",
        "## Sets",
        _table(
            ["set", "what it asks", *SPLITS],
            [
                [name, _SETS.get(name, ""), *(f"{counts[s]:,}" for s in SPLITS)]
                for name, counts in sorted(summary["sets"].items(), key=lambda item: _rank(item[0]))
                if any(counts.values())
            ],
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
        "## Validation",
        *_validation(read_json(folder / "validation.json")),
        "## Licences",
        _table(["of", "licence", "items"], list(_licences(read_origins(folder)))),
        "## Read it",
        _FILES,
        "## Keep in mind",
        "- Captions are what a model said, rewritten by rules; they can be wrong.\n"
        "- Names are drawn at random and say nothing about the people.\n"
        "- Who is the same person is what ArcFace says; somebody it does not recognise again can be in two "
        "splits.\n"
        "- Masks are a model's; a little of hair or of the background can be wrong.\n"
        "- `splits.json` lists every person's clips and pictures, `origins.jsonl` where each came from: with them "
        "`visavis forget` takes a person out.",
    ]
    text = "\n\n".join(parts) + "\n"
    write_atomic(folder / CARD_NAME, text)
    write_atomic(folder / README_NAME, f"---\n{_front_matter(read_dataset(folder))}---\n{text}")


def _front_matter(dataset: Mapping[str, Any]) -> str:
    counts = dataset["counts"]["splits"]
    files = [{"split": name, "path": f"{name}-*.tar"} for name in SPLITS if counts[name]]
    features = [
        {"name": name, "dtype": _YAML_KINDS[kind["_type"]]} for name, kind in dataset["features"].items()
    ]
    content: dict[str, Any] = {"pretty_name": dataset["name"]}
    if files:
        content |= {
            "configs": [{"config_name": "default", "data_files": files}],
            "dataset_info": {"features": features},
        }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _rank(name: str) -> tuple[int, str]:
    return (list(_SETS).index(name) if name in _SETS else len(_SETS), name)


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


def _validation(report: Mapping[str, Any]) -> Iterator[str]:
    words = "The data set passed." if report["passed"] else "**The data set did not pass.**"
    rates = report["figures"]["duplicates"]
    yield (
        f"{words} Duplicates: {rates['pictures_of_two_items']:.2%} of the pictures come from two clips, "
        f"{rates['equal_samples']:.2%} of the samples and {rates['equal_captions']:.2%} of the chats' captions "
        "are like another. The whole report is `validation.json`."
    )
    yield _table(
        ["check", "found"],
        [[check["words"], f"{check['found']:,}" if check["found"] else "✓"] for check in report["checks"]],
    )


def _licences(origins: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for kind in ("clip", "picture"):
        counts = Counter(str(row["licence"] or "not stated") for row in origins if row["kind"] == kind)
        for name, count in sorted(counts.items()):
            yield [f"{kind}s", _cell(name), f"{count:,}"]


def _reasons(dropped: Mapping[str, int]) -> str:
    ordered = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in ordered) or "–"


def _cell(text: str) -> str:
    """Keeps foreign text inside of its cell, and inside of UTF-8."""
    plain = text.encode("utf-8", "replace").decode()
    return plain.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)
