"""Chatting in a terminal: pictures are saved, and drawn with half blocks where colours are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

from visavis.chat.model import ChatModel, Picture
from visavis.chat.session import ChatSession

_COLUMNS = 48
_HINT = """[bold]Talk to the model.[/bold] An empty line or Ctrl-D ends the chat. Try:
  Generate an image: two friends, Julian with long red hair and Olivia with headphones, in a cafe
  Generate a close-up photo of Olivia
  Generate a close-up photo of Julian"""


def half_blocks(picture: Picture, columns: int = _COLUMNS) -> Text:
    """Draws a picture with one character for two pixels, one above the other."""
    pixels = np.asarray(Image.fromarray(picture).resize((columns, columns), Image.Resampling.BICUBIC))
    text = Text()
    for top, bottom in zip(pixels[::2], pixels[1::2], strict=True):
        for upper, lower in zip(top, bottom, strict=True):
            colours = ["#{:02x}{:02x}{:02x}".format(*map(int, pixel)) for pixel in (upper, lower)]
            text.append("▀", style=f"{colours[0]} on {colours[1]}")
        text.append("\n")
    return text


def run(model: ChatModel, out: Path, seed: int = 0, console: Console | None = None) -> int:
    """Chats until an empty line; returns the number of pictures saved to `out`."""
    screen = console or Console()
    screen.print(_HINT)
    session, saved = ChatSession(model, seed), 0
    while True:
        try:
            line = screen.input("\n[bold cyan]you[/bold cyan]  ").strip()
        except EOFError:
            line = ""
        if not line:
            return saved
        answer = session.say(line)
        screen.print(f"[bold magenta]model[/bold magenta]  {answer.text}")
        if answer.picture is None:
            continue
        saved += 1
        path = out / f"{saved:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(answer.picture).resize((512, 512), Image.Resampling.BICUBIC).save(path)
        if screen.is_terminal and screen.color_system in ("truecolor", "256"):
            screen.print(half_blocks(answer.picture))
        screen.print(f"[dim]saved as {path}[/dim]")
