"""Saving of parts at rest: fp16 safetensors in the library's own layout."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Protocol, TypeVar


class Saveable(Protocol):
    """What transformers' and diffusers' models, and ours, have in common."""

    def half(self) -> Saveable:
        """Casts the floating-point parameters to fp16, in place."""
        ...

    def save_pretrained(self, save_directory: str | Path) -> object:
        """Writes config and weights into a folder."""
        ...


SaveableT = TypeVar("SaveableT", bound=Saveable)


def save_half(model: SaveableT, folder: Path) -> None:
    """Writes an fp16 copy of `model` with its own `save_pretrained`; the model itself keeps its precision.

    Args:
        model: A transformers or diffusers model, or any module with the same method.
        folder: Where to write; made if missing. For an atomic write, call inside `visavis.files.atomic_dir`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).half().save_pretrained(folder)
