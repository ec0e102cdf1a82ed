"""Pictures of an evaluation: chats as one would see them on a phone, and people through the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from visavis.evaluation.items import Picture
from visavis.evaluation.style import (
    ACCENT,
    CARD,
    INK,
    LINE,
    PEOPLE,
    SOFT,
    Canvas,
    Colour,
    Word,
    line_width,
    plain,
    text_width,
    tint,
    wrap,
)

_PHONE, _PICTURE, _TRUTH, _PAD, _GAP = 356, 208, 76, 16, 20
_LETTER, _LEADING, _NOTE = 12.5, 19, 10
_SAID, _SAID_LEADING = 11.5, 17


@dataclass(frozen=True)
class ChatRound:
    """What was asked and what came back.

    Attributes:
        asked: The user's words.
        picture: The model's picture.
        said: The model's words, if they are to be shown.
        truth: The picture that the data holds for this round, shown small beside the model's.
    """

    asked: str
    picture: Picture
    said: str = ""
    truth: Picture | None = None


def chat_sheet(
    chats: Sequence[Sequence[ChatRound]], names: Sequence[Sequence[str]] | None = None
) -> Image.Image:
    """Draws chats side by side: the user's words on the right in bubbles, the model's pictures on the left.

    Each person has a colour; the name wears it, and so does the frame of a picture asked for by one name.

    Args:
        chats: Rounds of each chat.
        names: The people's names in each chat; by default those that `names_in` finds.
    """
    chats = [chat for chat in chats if chat]
    if not chats:
        return _note("No chat to show: the test split holds no conversation of several rounds.")
    people = names or [names_in([item.asked for item in chat]) for chat in chats]
    tall = max(_chat_height(chat) for chat in chats) + 2 * _PAD
    canvas = Canvas(_GAP + len(chats) * (_PHONE + _GAP), tall + 2 * _GAP)
    for index, (chat, who) in enumerate(zip(chats, people, strict=True)):
        left = _GAP + index * (_PHONE + _GAP)
        canvas.rectangle((left, _GAP, left + _PHONE, _GAP + tall), fill=CARD, outline=LINE, radius=18)
        y: float = _GAP + _PAD
        for item in chat:
            y = _draw_round(canvas, item, who, left, y)
    return canvas.image()


def names_in(asked: Sequence[str]) -> tuple[str, ...]:
    """Returns the capitalised words that come up in several of the user's turns, not only as their first word."""
    turns = [[word.strip(".,:;!?\"'()") for word in text.split()] for text in asked]
    inside = dict.fromkeys(word for turn in turns for word in turn[1:] if word[:1].isupper())
    return tuple(word for word in inside if sum(word in turn for turn in turns) > 1)


def labelled_grid(
    rows: Mapping[str, Sequence[Picture | None]],
    size: int = 112,
    *,
    columns: Sequence[str] = (),
    notes: Mapping[str, Sequence[str]] | None = None,
) -> Image.Image:
    """Draws one row of pictures for each label.

    Args:
        rows: Label to pictures; a None leaves its place free.
        size: Side of a picture in nominal px (the image has twice as many).
        columns: Words above the columns, on at most two lines.
        notes: By label, a short line below each picture of that row (a figure, for example).
    """
    if not any(len(pictures) for pictures in rows.values()):
        return _note("No pictures to show.")
    notes = notes or {}
    gap, margin = 8, 2 * _PAD + 140
    count = max(len(pictures) for pictures in rows.values())
    titles = [_two_lines(words, size) for words in columns[:count]]
    head = 6 + 15 * max((len(lines) for lines in titles), default=0)
    heights = [size + gap + (16 if label in notes else 0) for label in rows]
    canvas = Canvas(margin + count * (size + gap) + _PAD - gap, 2 * _PAD + head + sum(heights) - gap)
    for x, lines in enumerate(titles):
        for y, short in enumerate(lines):
            left = margin + x * (size + gap) + (size - text_width(short, _NOTE)) / 2
            canvas.text(left, _PAD - 4 + 15 * y, short, size=_NOTE, colour=SOFT)
    top: float = _PAD + head
    for (label, pictures), height in zip(rows.items(), heights, strict=True):
        words_of = wrap(plain(label), _LETTER, margin - 2 * _PAD)
        first = top + (size - len(words_of) * 17) / 2
        for index, line in enumerate(words_of):
            canvas.words(_PAD, first + index * 17, line, size=_LETTER)
        for x, picture in enumerate(pictures):
            left = margin + x * (size + gap)
            if picture is not None:
                canvas.picture(picture, left, top, size, radius=6)
        for x, words in enumerate(notes.get(label, ())):
            short = _shortened(words, _NOTE, size)
            left = margin + x * (size + gap) + (size - text_width(short, _NOTE)) / 2
            canvas.text(left, top + size + 2, short, size=_NOTE, colour=SOFT)
        top += height
    return canvas.image()


def _coloured(text: str, names: Sequence[str]) -> list[Word]:
    """Returns the words of a bubble; names stand out."""
    bare = {name: index for index, name in enumerate(names)}
    words = []
    for word in text.split():
        index = bare.get(word.strip(".,:;!?\"'()"))
        words.append(Word(word, INK) if index is None else Word(word, _of(index), bold=True))
    return words


def _of(person: int) -> Colour:
    return PEOPLE[person % len(PEOPLE)]


def _lines(text: str) -> list[list[Word]]:
    """Returns the lines of a bubble, broken as if every word were bold, so that names never push a line out."""
    return wrap(plain(text, bold=True), _LETTER, _PHONE - 92)


def _round_height(item: ChatRound) -> float:
    said = len(_said(item)) * _SAID_LEADING + 6 if item.said else 0
    return len(_lines(item.asked)) * _LEADING + 16 + 10 + said + _PICTURE + _PAD + 6


def _said(item: ChatRound) -> list[list[Word]]:
    """Returns the lines of the model's words."""
    return wrap(plain(item.said, SOFT), _SAID, _PHONE - 2 * _PAD)


def _chat_height(chat: Sequence[ChatRound]) -> float:
    return sum(_round_height(item) for item in chat) - _PAD - 6


def _draw_round(canvas: Canvas, item: ChatRound, names: Sequence[str], left: float, y: float) -> float:
    """Draws a round with its top at y; returns the top of the next."""
    bottom = y + _round_height(item)
    coloured = iter(_coloured(item.asked, names))
    lines = [[next(coloured) for _ in line] for line in _lines(item.asked)]
    wide = max(line_width(line, _LETTER) for line in lines)
    right, tall = left + _PHONE - _PAD, len(lines) * _LEADING + 16
    canvas.rectangle((right - wide - 26, y, right, y + tall), fill=tint(ACCENT, 0.11), radius=13)
    for index, line in enumerate(lines):
        canvas.words(right - wide - 13, y + 8 + index * _LEADING, line, size=_LETTER)
    y += tall + 10
    if item.said:
        for line_of_words in _said(item):
            canvas.words(left + _PAD, y, line_of_words, size=_SAID)
            y += _SAID_LEADING
        y += 6
    asked = [index for index, name in enumerate(names) if _mentions(item.asked, name)]
    x = left + _PAD
    if len(asked) == 1:
        frame = (x - 4, y - 4, x + _PICTURE + 4, y + _PICTURE + 4)
        canvas.rectangle(frame, fill=CARD, outline=_of(asked[0]), radius=14, width=2)
    canvas.picture(item.picture, x, y, _PICTURE, radius=10)
    if item.truth is not None:
        x += _PICTURE + 18
        canvas.picture(item.truth, x, y + _PICTURE - _TRUTH, _TRUTH, radius=7)
        canvas.text(x, y + _PICTURE - _TRUTH - 17, "in the clip", size=10, colour=SOFT)
    return bottom


def _mentions(text: str, name: str) -> bool:
    return name in (word.strip(".,:;!?\"'()") for word in text.split())


def _two_lines(text: str, width: float) -> list[str]:
    """Returns the text on at most two lines, the second cut with an ellipsis."""
    lines = [" ".join(word.text for word in line) for line in wrap(plain(text), _NOTE, width)]
    return [_shortened(line, _NOTE, width) for line in [*lines[:1], " ".join(lines[1:])] if line]


def _shortened(text: str, size: float, width: float) -> str:
    """Returns the text, cut with an ellipsis where it is wider than `width`."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _note(text: str) -> Image.Image:
    """Returns a small card with words, where there is nothing to draw."""
    canvas = Canvas(text_width(text, 13) + 4 * _PAD, 4 * _PAD)
    canvas.rectangle(
        (_PAD / 2, _PAD / 2, text_width(text, 13) + 3.5 * _PAD, 3.5 * _PAD),
        fill=CARD,
        outline=LINE,
        radius=12,
    )
    canvas.text(2 * _PAD, 2 * _PAD - 8, text, colour=SOFT)
    return canvas.image()
