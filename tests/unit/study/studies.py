"""Small studies for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from visavis.study.pairs import Pair, pairs_from_folders
from visavis.study.plan import Settings, Study, create_study

SIDE = 96
PROMPTS = ("a close-up photo of {}", "{} as an astronaut", "{} in the rain", "a portrait of {} in oil")
NAMES = ("Olivia", "Julian", "Mia", "Anton", "Rosa", "Emil")


def paint(path: Path, hue: int, smile: bool, system: str = "") -> None:
    """Writes a face of sorts, in whose metadata stands who made it."""
    from PIL.PngImagePlugin import PngInfo

    image = Image.new("HSV", (SIDE * 4, SIDE * 4), (hue, 60, 235))
    draw = ImageDraw.Draw(image)
    draw.ellipse((90, 60, 294, 330), fill=(hue, 170, 210))
    for x in (150, 214):
        draw.ellipse((x, 150, x + 22, 172), fill=(0, 0, 40))
    draw.arc((142, 200, 242, 280), *((20, 160) if smile else (200, 340)), fill=(0, 0, 40), width=9)
    facts = PngInfo()
    facts.add_text("made by", system)
    image.convert("RGB").resize((SIDE, SIDE)).save(path, pnginfo=facts)


def make_sources(root: Path, items: int) -> tuple[Path, Path, Path]:
    """Writes two folders of pictures with prompts and faces; returns both and the file of prompts."""
    ours, theirs, rows = root / "ours", root / "theirs", []
    for folder in (ours, theirs, root / "faces"):
        folder.mkdir(parents=True)
    for number in range(items):
        name, hue = f"{number:02d}.png", 40 * number % 256
        paint(ours / name, hue, True, "ours")
        paint(theirs / name, (hue + 15) % 256, False, "theirs")
        paint(root / "faces" / name, hue, True)
        words = PROMPTS[number % len(PROMPTS)].format(NAMES[number % len(NAMES)])
        rows.append({"file": name, "prompt": words, "face": f"faces/{name}"})
    prompts = root / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ours, theirs, prompts


def make_study(root: Path, items: int, **settings: Any) -> Study:
    """Returns a study of `items` pairs; every item has all three questions."""
    pairs, _ = pairs_from_folders(*make_sources(root / "sources", items))
    return create_study(root / "study", pairs, Settings(**settings))


def make_pairs(root: Path, count: int) -> list[Pair]:
    """Returns pairs of one and the same two pictures, without words or face: one question each."""
    root.mkdir(parents=True, exist_ok=True)
    for name, smile in (("a", True), ("b", False)):
        paint(root / f"{name}.png", 20, smile)
    return [Pair(f"{number:03d}", root / "a.png", root / "b.png") for number in range(count)]
