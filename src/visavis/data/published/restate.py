"""What a data set says of itself, told anew after items were taken out: ledger, funnel and summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from itertools import combinations
from pathlib import Path
from typing import Any

from visavis.data.funnel import check_funnel
from visavis.data.published.origins import read_origins
from visavis.data.published.shards import read_index, read_samples
from visavis.data.split import SPLITS
from visavis.files import read_json, read_jsonl, write_json, write_jsonl

REASON = "forgotten"


def restate(before: Path, after: Path, gone: Set[str]) -> None:
    """Writes `ledger.jsonl`, `funnel.json` and `summary.json` of a data set from which items were taken out.

    A forgotten clip stays in the ledger as its id and the reason `forgotten`, so that in = kept + Σ dropped still
    holds; what was known of it is not kept.

    Args:
        before: The data set with the items.
        after: The data set without; holds shards, index and origins.
        gone: Ids of the items.
    """
    rows = read_jsonl(before / "ledger.jsonl")
    # An imported chat has a row of its own, which names the picture that it begins with.
    taken = [not gone.isdisjoint((row["item_id"], row["detail"].get("picture"))) for row in rows]
    lost = {row["item_id"] for row, out in zip(rows, taken, strict=True) if out and row["status"] == "kept"}
    ledger = [_forgotten(row) if out else row for row, out in zip(rows, taken, strict=True)]
    write_jsonl(after / "ledger.jsonl", ledger)
    funnel = read_json(before / "funnel.json")
    if funnel and funnel[-1]["step"] == "build_conversations":  # it counts the clips that became chats
        lost &= {row["clip_id"] for row in read_index(before) if row["set"] == "rounds"}
    write_json(after / "funnel.json", _funnel(funnel, len(lost)))
    write_json(after / "summary.json", _summary(read_json(before / "summary.json"), after, ledger))


def _forgotten(row: Mapping[str, Any]) -> dict[str, Any]:
    reason = REASON if row["status"] == "kept" else row["reason"]
    return {**row, "status": "dropped", "reason": reason, "detail": {}}


def _funnel(rows: Sequence[dict[str, Any]], lost: int) -> list[dict[str, Any]]:
    if not rows or not lost:
        return list(rows)
    *others, last = rows
    dropped = Counter(last["dropped"])
    dropped[REASON] += lost
    ordered = dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0])))
    changed = [*others, {**last, "kept": last["kept"] - lost, "dropped": ordered}]
    check_funnel(changed)
    return changed


def _summary(before: Mapping[str, Any], after: Path, ledger: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    index = read_index(after)
    sets = Counter((row["set"], row["split"]) for row in index)
    people = {split: {p for row in index if row["split"] == split for p in row["people"]} for split in SPLITS}
    origins = read_origins(after)
    # Imported sets have pictures where ours have clips.
    counted = "clip" if any(row["kind"] == "clip" for row in origins) else "picture"
    clips = Counter(row["split"] for row in origins if row["kind"] == counted)
    tags = [sample["tags"] for sample in read_samples(after, sets=["rounds"])]
    dropped = Counter(row["reason"] for row in ledger if row["status"] == "dropped")
    kept = sum(row["status"] == "kept" for row in ledger)
    return {
        **before,
        "counts": {"in": len(ledger), "kept": kept, "dropped": dict(sorted(dropped.items()))},
        "samples": len(index),
        "sets": {name: {split: sets[name, split] for split in SPLITS} for name in before["sets"]},
        "clips": {split: clips[split] for split in SPLITS},
        "people": {split: len(people[split]) for split in SPLITS},
        "people_in_two_splits": sum(len(people[a] & people[b]) for a, b in combinations(SPLITS, 2)),
        "rounds": {
            "styles": dict(sorted(Counter(tag["style"] for tag in tags).items())),
            "left_first": sum(tag["order_left_first"] for tag in tags),
            "left_asked_first": sum(tag["asked"][0] == 0 for tag in tags),
        },
    }
