"""The last act of a data set: it is validated, described, made visible, and closed with a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.data.config import ConversationConfig
from visavis.data.published.card import write_card
from visavis.data.published.dataset import write_dataset
from visavis.data.published.validation import Report, validate
from visavis.data.published.viewer import write_viewer


def publish(folder: Path, config: ConversationConfig, ledgers: Mapping[str, Path]) -> Report:
    """Writes `validation.json`, `card.md`, `README.md`, `viewer.html` and, last, `dataset.json` about all files.

    Args:
        folder: Folder with shards, index, `origins.jsonl`, `splits.json`, `summary.json` and `funnel.json`.
        config: What was asked for.
        ledgers: Step -> ledger of what was dropped; thumbnails are looked for beside it.

    Returns:
        The report. A data set that does not pass is published too: its card and its page say so.
    """
    write_dataset(folder, config)
    report = validate(folder)
    report.write(folder)
    write_card(folder, config)
    write_viewer(folder, config, ledgers)
    write_dataset(folder, config)
    return report
