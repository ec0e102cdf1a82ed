"""The schema of a sample: what its JSON must look like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from visavis.data.split import SPLITS

RECORD_FIELDS: dict[str, type] = {
    "id": str,
    "set": str,
    "split": str,
    "clip_id": str,
    "people": list,
    "turns": list,
    "tags": dict,
    "caption": str,
    "images": list,
}
"""Fields of the JSON of a sample."""


def schema_faults(record: Any, key: str) -> Iterator[str]:
    """Yields what is wrong with the JSON of a sample; `key` is its name in the shard."""
    if not isinstance(record, dict):
        yield "its JSON is not an object"
        return
    wrong = [name for name, kind in RECORD_FIELDS.items() if not isinstance(record.get(name), kind)]
    if wrong or set(record) != set(RECORD_FIELDS):
        yield f"fields {', '.join(wrong or sorted(set(record) ^ set(RECORD_FIELDS)))}"
        return
    if record["id"] != key:
        yield f"id is {record['id']}"
    if record["split"] not in SPLITS:
        yield f"split is {record['split']!r}"
    for name in ("people", "images"):
        if not all(isinstance(value, str) for value in record[name]):
            yield f"{name} holds something else than text"
            return
    yield from _turn_faults(record["turns"], len(record["images"]))


def _turn_faults(turns: Sequence[Any], images: int) -> Iterator[str]:
    shown: set[int] = set()
    if not turns or len(turns) % 2:
        yield f"{len(turns)} turns"
    for number, turn in enumerate(turns):
        role = ("user", "assistant")[number % 2]
        if (
            not isinstance(turn, dict)
            or turn.get("role") != role
            or not isinstance(turn.get("content"), list)
        ):
            yield f"turn {number} is not one of the {role}"
            continue
        for part in turn["content"]:
            match part:
                case {"type": "text", "text": str()}:
                    pass
                case {"type": "image", "image": int(index)} if 0 <= index < images:
                    shown.add(index)
                case _:
                    yield f"turn {number} holds neither text nor one of the pictures"
    if len(shown) != images:
        yield f"{images - len(shown)} pictures are in no turn"
