"""Editing sets as they are published, with pictures of noise."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Session = list[dict[str, Any]]


def picture(seed: int, width: int = 48, height: int = 40, form: str = "PNG") -> bytes:
    """A picture of soft patches that no other seed has."""
    small = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, form, quality=90)
    return buffer.getvalue()


def session(number: int, turns: int, form: str = "PNG") -> Session:
    """Rows of a session as MagicBrush publishes them; picture k of it has the seed 10 * number + k."""
    return [
        {
            "img_id": str(number),
            "turn_index": turn,
            "source_img": {
                "bytes": picture(10 * number + turn - 1, form=form),
                "path": f"{number}-{turn}.png",
            },
            "mask_img": {"bytes": b"not read", "path": None},
            "instruction": f"edit {turn} of {number}",
            "target_img": {"bytes": picture(10 * number + turn), "path": None},
        }
        for turn in range(1, turns + 1)
    ]


def write_tables(root: Path, sessions: list[Session], split: str = "train", parts: int = 2) -> Path:
    """Writes the rows over several tables, wherever a session is cut in two by it."""
    rows = [row for given in sessions for row in given]
    (root / "data").mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // parts)
    for part in range(parts):
        path = root / "data" / f"{split}-{part:05d}-of-{parts:05d}-abc.parquet"
        pq.write_table(pa.Table.from_pylist(rows[part * size : (part + 1) * size]), path)
    return root


def write_sessions(root: Path, sessions: list[Session], split: str = "train") -> Path:
    """Writes the same as files, as MagicBrush's test set is published."""
    content: dict[str, Session] = {}
    for rows in sessions:
        number = rows[0]["img_id"]
        folder = root / split / "images" / number
        folder.mkdir(parents=True)
        names = [f"{number}-input.png", *(f"{number}-output{row['turn_index']}.png" for row in rows)]
        for name, row in zip(names[1:], rows, strict=True):
            (folder / name).write_bytes(row["target_img"]["bytes"])
        (folder / names[0]).write_bytes(rows[0]["source_img"]["bytes"])
        content[number] = [
            {"input": names[k], "mask": f"{number}-mask{k + 1}.png", "output": names[k + 1]}
            | {"instruction": row["instruction"]}
            for k, row in enumerate(rows)
        ]
    (root / split / "edit_sessions.json").write_text(json.dumps(content))
    return root


def write_lines(root: Path, sessions: list[Session], folder: str = "images") -> Path:
    """Writes the same as part 3 of SEED-Data-Edit is published."""
    lines = []
    for rows in sessions:
        number = rows[0]["img_id"]
        (root / folder / "split_0001").mkdir(parents=True, exist_ok=True)
        names = [
            f"split_0001/{number}.jpg",
            *(f"split_0001/{number}_edit{k + 1}.jpg" for k in range(len(rows))),
        ]
        contents = [rows[0]["source_img"]["bytes"], *(row["target_img"]["bytes"] for row in rows)]
        for name, data in zip(names, contents, strict=True):
            (root / folder / name).write_bytes(data)
        line = {"source_image": names[0]}
        for k, row in enumerate(rows, 1):
            line |= {f"instruction_{k}": row["instruction"], f"edit_image_{k}": names[k]}
            line |= {f"inverse_instruction_{k}": "back"}
        lines.append(json.dumps(line))
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "split_0001.jsonl").write_text("\n".join(lines) + "\n\n")
    return root
