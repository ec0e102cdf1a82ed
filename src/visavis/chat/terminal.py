"""Chatting in a terminal: pictures are saved, and drawn with half blocks where colours are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

from visavis.chat.conversation import Picture
from visavis.chat.model import ChatModel
from visavis.chat.session import EXAMPLES, ChatSession
from visavis.chat.talker import Answer
from visavis.errors import VisavisError

_COLUMNS = 48
_TRY = "\n".join(f"  {words}" for words in EXAMPLES)
_HINT = f"""[bold]Talk to the model.[/bold] An empty line or Ctrl-D ends the chat. Try:
{_TRY}
[dim]/retry another picture  /undo go back  /tree show all  /go N  /edit N WORDS  /seed N  /show FILE WORDS[/dim]"""


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
        try:
            answer = _command(session, line, screen) if line.startswith("/") else session.say(line)
        except VisavisError as error:
            screen.print(f"[red]{error.message}[/red]\n  [dim]{error.fix}[/dim]")
            continue
        if answer is None:
            continue
        screen.print(f"[bold magenta]model[/bold magenta]  {answer.text}")
        if answer.picture is not None:
            saved += 1
            _show(answer.picture, out / f"{saved:02d}.png", screen)


def _show(picture: Picture, path: Path, screen: Console) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).resize((512, 512), Image.Resampling.BICUBIC).save(path)
    if screen.is_terminal and screen.color_system in ("truecolor", "256"):
        screen.print(half_blocks(picture))
    screen.print(f"[dim]saved as {path}[/dim]")


def _command(session: ChatSession, line: str, screen: Console) -> Answer | None:
    """Carries out a line that begins with a slash; returns the answer if there is a new one.

    Raises:
        VisavisError: If there is no such command, or what it names does not exist.
    """
    name, _, rest = line[1:].partition(" ")
    rest = rest.strip()
    if name == "retry":
        return session.retry()
    if name == "undo":
        screen.print(f"[dim]back in front of: {session.undo().text}[/dim]")
    elif name == "tree":
        screen.print(session.conversation.outline() or "nothing was said yet", markup=False)
    elif name == "go":
        session.conversation.go(_number(rest))
        screen.print(session.conversation.outline(), markup=False)
    elif name == "seed":
        session.reseed(_number(rest))
        screen.print(f"[dim]pictures have the seed {rest} from now on[/dim]")
    elif name == "edit":
        number, _, words = rest.partition(" ")
        return session.edit(_number(number), words)
    elif name == "show":
        path, _, words = rest.partition(" ")
        return session.say(words, (_picture(Path(path)),))
    else:
        raise VisavisError(
            f"there is no command /{name}", fix="commands: /retry /undo /tree /go /edit /seed /show"
        )
    return None


def _number(words: str) -> int:
    if not words.isdigit():
        raise VisavisError(f"{words!r} is not a number", fix="write a number of /tree, such as /go 2")
    return int(words)


def _picture(path: Path) -> Picture:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise VisavisError(f"{path} cannot be shown: {error}", fix="name a PNG or JPEG file") from None
