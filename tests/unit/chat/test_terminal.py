"""A chat in a terminal: what is typed, what is saved, and the commands."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from talking import SAYING, Painting

from visavis.chat.terminal import half_blocks, run


def chat(model: Painting, out: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    screen = Console(file=io.StringIO(), width=200)
    left = iter([*lines, ""])
    monkeypatch.setattr(screen, "input", lambda _: next(left))
    saved = run(model, out, console=screen)
    return saved, screen.file.getvalue()  # type: ignore[attr-defined]


def test_commands(model: Painting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face = tmp_path / "face.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(face)
    lines = [
        SAYING,
        "/retry",
        "/undo",
        "Julian",
        "/tree",
        "/go 1",
        "/edit 0 Olivia",
        f"/show {face} Julian",
        "/seed 4",
    ]
    saved, seen = chat(model, tmp_path / "out", lines, monkeypatch)
    assert saved == 5 == len(list((tmp_path / "out").iterdir()))
    assert f"back in front of: {SAYING}" in seen and "● 4 " in seen and "seed 4" in seen


def test_mistakes_are_explained_and_the_chat_goes_on(
    model: Painting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["/undo", "/nonsense", "/go x", "/go 7", "/show none.png hi", SAYING, "/edit 1 hm", SAYING]
    saved, seen = chat(model, tmp_path, lines, monkeypatch)
    assert saved == 2
    for words in (
        "no message of the user",
        "no command /nonsense",
        "'x' is not a number",
        "no message 7",
        "cannot be shown",
        "message 1 is the model's",
    ):
        assert words in seen


def test_half_blocks() -> None:
    drawn = half_blocks(np.zeros((64, 64, 3), np.uint8), 8)
    assert drawn.plain == ("▀" * 8 + "\n") * 4
