"""The balance of a data set: how often which attribute occurs in each split, told by the samples alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from visavis.data.split import SPLITS

_COMMON_NAMES = 5


class Balance:
    """Counts attributes while the samples go by."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, Counter[str]]] = {split: defaultdict(Counter) for split in SPLITS}
        self._captions: Counter[str] = Counter()

    def add(self, record: Mapping[str, Any]) -> None:
        """Counts a sample, given as its JSON."""
        counts, tags = self._counts[record["split"]], record["tags"]
        counts["sets"][record["set"]] += 1
        if record["set"] != "rounds":
            return
        self._captions[record["caption"]] += 1
        if "style" in tags:
            counts["styles"][str(tags["style"])] += 1
        if "order_left_first" in tags:
            counts["named_first"]["left" if tags["order_left_first"] else "right"] += 1
        for key, name in (("asked_side", "asked_first"), ("asked_names", "names")):
            values = [str(value) for value in tags.get(key) or ()]
            counts[name].update(values[:1] if name == "asked_first" else values)

    def equal_captions(self) -> float:
        """Returns the share of the chats in three rounds whose caption another one has too."""
        repeated = sum(count for count in self._captions.values() if count > 1)
        return repeated / max(self._captions.total(), 1)

    def figures(self) -> dict[str, Any]:
        """Returns split -> attribute -> value -> count; of the names only how many, and the most common ones."""
        return {split: self._of(split) for split in SPLITS}

    def _of(self, split: str) -> dict[str, Any]:
        counts = {name: dict(sorted(found.items())) for name, found in self._counts[split].items()}
        names = self._counts[split].get("names", Counter())
        common = sorted(names.items(), key=lambda item: (-item[1], item[0]))[:_COMMON_NAMES]
        return {name: counts.get(name, {}) for name in ("sets", "styles", "named_first", "asked_first")} | {
            "names": {"different": len(names), "most_common": dict(common)}
        }
