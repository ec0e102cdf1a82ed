"""Pictures of an evaluation as `visavis study create` takes them: the same names for every model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from visavis.files import sha256_bytes, write_jsonl

if TYPE_CHECKING:
    from visavis.evaluation.items import SingleRoundItem

STUDY, PICTURES, PROMPTS = "study", "pictures", "prompts.jsonl"
_FACES = "faces"


def write_study_pictures(items: Sequence[SingleRoundItem], folder: Path) -> None:
    """Writes generated pictures, the faces that were given, and the words.

    Args:
        items: Single rounds.
        folder: Gets `pictures/`, `faces/` and `prompts.jsonl` of `file`, `prompt`, `face`.
    """
    for name in (PICTURES, _FACES):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for item in items:
        name = f"{sha256_bytes(item.item_id.encode())[:16]}.png"
        Image.fromarray(item.generated).save(folder / PICTURES / name)
        Image.fromarray(item.source_face).save(folder / _FACES / name)
        rows.append({"file": name, "prompt": item.caption, "face": f"{_FACES}/{name}"})
    write_jsonl(folder / PROMPTS, rows)
