"""Pictures of an evaluation: chats as one would see them on a phone, and people through the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.font_manager as fonts
from PIL import Image, ImageDraw, ImageFont

from visavis.evaluation.items import Picture

_PAPER, _INK, _SOFT = (250, 249, 246), (44, 42, 38), (130, 126, 118)
_BUBBLE, _ASKED = (255, 255, 255), (32, 92, 128)
_WIDTH, _PICTURE, _PAD, _LINE = 420, 220, 14, 20


@dataclass(frozen=True)
class ChatRound:
    """What was asked and what came back."""

    asked: str
    picture: Picture


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    found = fonts.findfont(fonts.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal"))
    return ImageFont.truetype(found, size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) > width and line:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line]


def _chat(rounds: Sequence[ChatRound]) -> Image.Image:
    font = _font(14)
    wrapped = [_wrapped(item.asked, font, _WIDTH - 110) for item in rounds]
    height = sum(len(lines) * _LINE + _PICTURE + 5 * _PAD for lines in wrapped) + _PAD
    page = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(page)
    y = _PAD
    for lines, item in zip(wrapped, rounds, strict=True):
        wide = max(font.getlength(line) for line in lines)
        left, tall = _WIDTH - _PAD - wide - 2 * _PAD, len(lines) * _LINE + _PAD
        draw.rounded_rectangle((left, y, _WIDTH - _PAD, y + tall), 12, fill=_ASKED)
        for index, line in enumerate(lines):
            draw.text((left + _PAD, y + _PAD / 2 + index * _LINE), line, fill=(255, 255, 255), font=font)
        y += tall + _PAD
        box = (_PAD, y, _PAD + _PICTURE + 12, y + _PICTURE + 12)
        draw.rounded_rectangle(box, 12, fill=_BUBBLE, outline=(226, 222, 214))
        large = Image.fromarray(item.picture).resize((_PICTURE, _PICTURE), Image.Resampling.BICUBIC)
        page.paste(large, (_PAD + 6, y + 6))
        y += _PICTURE + 12 + 2 * _PAD
    return page


def chat_sheet(chats: Sequence[Sequence[ChatRound]]) -> Image.Image:
    """Draws chats side by side: words on the right in bubbles, the model's pictures on the left."""
    pages = [_chat(chat) for chat in chats]
    sheet = Image.new("RGB", (_WIDTH * len(pages), max(page.height for page in pages)), _PAPER)
    for index, page in enumerate(pages):
        sheet.paste(page, (index * _WIDTH, 0))
    return sheet


def labelled_grid(rows: Mapping[str, Sequence[Picture]], size: int = 112) -> Image.Image:
    """Draws one row of pictures for each label."""
    font, margin, gap = _font(13), 170, 6
    columns = max(len(pictures) for pictures in rows.values())
    sheet = Image.new("RGB", (margin + columns * (size + gap) + gap, len(rows) * (size + gap) + gap), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for y, (label, pictures) in enumerate(rows.items()):
        top = gap + y * (size + gap)
        for index, line in enumerate(_wrapped(label, font, margin - 20)):
            draw.text(
                (10, top + size / 2 - 10 + index * 17), line, fill=_INK if index == 0 else _SOFT, font=font
            )
        for x, picture in enumerate(pictures):
            tile = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
            sheet.paste(tile, (margin + x * (size + gap), top))
    return sheet
