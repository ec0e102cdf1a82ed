"""The chats of the viewer page: which samples are shown, and each as a card with boxes, masks and names."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from visavis.data.published.shards import read_groups, sample_of
from visavis.data.split import SPLITS

# Pictures are stored at about twice their size on the page, for dense screens.
FRAME_PX = (440, 440)
CLOSE_UP_PX = (224, 224)
_QUALITY = 80


def choose(rows: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """Returns the ids of up to `count` samples of each set, the splits by turns.

    Shards are mixed by a hash, so the first samples are as good as any, and lie in few shards.
    """
    chosen: list[str] = []
    for name in sorted({str(row["set"]) for row in rows}):
        queues = [
            [row["id"] for row in rows if (row["set"], row["split"]) == (name, split)] for split in SPLITS
        ]
        longest = max(map(len, queues))
        mixed = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
        chosen += mixed[:count]
    return chosen


def read_chosen(folder: Path, rows: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the samples in the order of `ids`, as `read_samples` gives them."""
    wanted = set(ids)
    found: dict[str, dict[str, Any]] = {}
    for shard in sorted({row["shard"] for row in rows if row["id"] in wanted}):
        left = sum(row["shard"] == shard and row["id"] in wanted for row in rows)
        for key, members in read_groups(folder / shard):
            if key in wanted:
                found[key] = sample_of(members)
                left -= 1
            if not left:
                break
    return [found[key] for key in ids]


def chat_card(sample: Mapping[str, Any], origin: Mapping[str, Any] | None) -> str:
    """Returns a sample as a card.

    Args:
        sample: From `read_samples`.
        origin: Its clip's row of `origins.jsonl`: boxes and outlines of the masks in both frames.
    """
    names = names_of(sample["tags"])
    style = str(sample["tags"].get("style", ""))
    turns = "".join(_turn(turn, sample, names, origin) for turn in sample["turns"])
    facts = "".join(
        f"<span>{text(words(value))}</span>"
        for value in (style, str(sample["tags"].get("kind", "")))
        if value
    )
    licence = f" · {text(str(origin['licence'] or 'licence not stated'))}" if origin else ""
    return (
        f'<article tabindex="0" data-set="{text(sample["set"])}" data-split="{text(sample["split"])}" '
        f'data-style="{text(style)}" hidden><header><b>{text(sample["set"])}</b>'
        f"<span>{text(sample['split'])}</span>{facts}</header>{turns}"
        f"<footer>{text(sample['id'])} · {text(', '.join(sample['people']))}{licence}</footer></article>\n"
    )


def names_of(tags: Mapping[str, Any]) -> dict[str, int]:
    """Returns name -> person (0 left, 1 right), as far as the tags of a chat say."""
    names = dict(zip(tags.get("asked_names", ()), tags.get("asked", ()), strict=False))
    names |= {show["name"]: show["person"] for show in tags.get("shows", ()) if show.get("name")}
    return {str(name): int(person) for name, person in names.items()}


def _turn(
    turn: Mapping[str, Any],
    sample: Mapping[str, Any],
    names: Mapping[str, int],
    origin: Mapping[str, Any] | None,
) -> str:
    parts = []
    for part in turn["content"]:
        if part["type"] == "text":
            parts.append(f"<span>{_coloured(part['text'], names)}</span>")
            continue
        digest, png = sample["images"].sha256[part["image"]], sample["images"].png(part["image"])
        frame = (origin or {}).get("frames", {}).get(digest)
        if frame is not None:
            parts.append(f'<span class="shot frame">{image(png, FRAME_PX)}{_marks(png, frame)}</span>')
        else:
            parts.append(f'<span class="shot">{image(png, CLOSE_UP_PX)}</span>')
    return f'<div class="turn {text(turn["role"])}">{"".join(parts)}</div>'


def _coloured(sentence: str, names: Mapping[str, int]) -> str:
    """Returns the sentence with the people's names in their colours."""
    if not names:
        return text(sentence)
    pattern = "|".join(rf"\b{re.escape(name)}\b" for name in sorted(names, key=len, reverse=True))
    pieces, end = [], 0
    for match in re.finditer(pattern, sentence):
        pieces.append(text(sentence[end : match.start()]))
        pieces.append(f'<b class="p{names[match[0]]}">{text(match[0])}</b>')
        end = match.end()
    return "".join(pieces) + text(sentence[end:])


def _marks(png: bytes, frame: Mapping[str, Any]) -> str:
    """Returns the boxes and the outlines of the masks as a drawing over the frame, in its px."""
    with Image.open(io.BytesIO(png)) as shown:
        width, height = shown.size
    return (
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true"><g class="masks">'
        f"{''.join(_polygons(frame['outlines']))}</g>"
        f'<g class="boxes">{"".join(_rectangles(frame["boxes"]))}</g></svg>'
    )


def _rectangles(boxes: Sequence[Sequence[float]]) -> Iterator[str]:
    for person, (x0, y0, x1, y1) in enumerate(boxes):
        yield f'<rect class="p{person}" x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}" rx="2"/>'


def _polygons(outlines: Sequence[Sequence[Sequence[int]] | None]) -> Iterator[str]:
    for person, points in enumerate(outlines):
        if points:
            path = " ".join(f"{int(x)},{int(y)}" for x, y in points)
            yield f'<polygon class="p{person}" points="{path}"/>'


def image(source: bytes | Path, most: tuple[int, int]) -> str:
    """Returns a picture as an element with its content inside; empty if it cannot be read.

    Args:
        source: Content of the file, or its path.
        most: Largest width and height to store, px; smaller pictures stay as they are.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            small = opened.convert("RGB")
    except OSError:
        return ""
    small.thumbnail(most, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img decoding="async" alt="" src="data:image/jpeg;base64,{data}">'


def words(name: str) -> str:
    """Returns a snake_case name as words."""
    return name.replace("_", " ")


def text(value: str) -> str:
    """Returns foreign text as it may stand in the page."""
    return html.escape(value, quote=True)
