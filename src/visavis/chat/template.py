r"""The one place where a conversation becomes tokens: SEED-X's instruction layout.

`<s> [INST] {text and images} [/INST]\\n {response} <img>…</img> </s>`, further turns prefixed by a newline.
Source: SEED-X (facts of its data pipes), the paper section 3.2.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from visavis.errors import VisavisError
from visavis.files import read_json, sha256_bytes, write_json

INSTRUCTION_OPEN = "[INST] "
INSTRUCTION_CLOSE = " [/INST]\n"
TURN_SEPARATOR = "\n"
IMAGE_OPEN = "<img>"
IMAGE_CLOSE = "</img>"
VIEW_OPEN = "<patch>"
VIEW_CLOSE = "</patch>"
TEMPLATE_FILE = "template.json"
RESPONSE = "I have generated an image."
CLOSE_UP = "Generate a close-up photo of {name}"
KEEP_IDENTICAL = "Please keep the face identical."
KEPT = "I keep the face unchanged."
_INSTRUCTION = re.compile(r"\[(/?INST)\]")
WHOLE = (0.5, 0.5)
"""Centre of a view that shows the whole picture."""


def query_token(index: int) -> str:
    """Returns the name of the `index`-th fixed query token: `<img_00000>` and so on."""
    return f"<img_{index:05d}>"


@dataclass(frozen=True)
class TextSegment:
    """A run of words; `supervised` marks words the model is to say."""

    ids: tuple[int, ...]
    supervised: bool


@dataclass(frozen=True)
class ImageSegment:
    """An image; `generated` ones are predicted and then read again, others are only read.

    Attributes:
        picture: Number of the picture, or of the view of one.
        generated: Whether the model is to predict it.
        centre: Centre (x, y) of the view in its picture, in [0, 1].
    """

    picture: int
    generated: bool
    centre: tuple[float, float] = WHOLE


Segment = TextSegment | ImageSegment
Turn = dict[str, Any]


class Template:
    """Renders turns into segments for one tokenizer.

    A turn is `{"role": "user" | "assistant", "content": [part, …]}`; a part is `{"type": "text", "text": …}` or
    `{"type": "image", "image": k}`. An image of the user's may have views of higher resolution, `"views": [[k, x, y],
    …]`: the number of each and its centre; they stand before it, each between `<patch>` and `</patch>`.

    Args:
        tokenizer: Has the words of the template.
        image_tokens: Tokens of an image block.
        views: Views of a user's image; if it names none, 1 is the image alone, and above 1 the same stands before it
            once more as a `<patch>` (SEED-X's editing data).

    Raises:
        VisavisError: If the tokenizer lacks a word of the template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_tokens: int, views: int = 1) -> None:
        needed = [IMAGE_OPEN, IMAGE_CLOSE, query_token(0), query_token(image_tokens - 1)]
        needed += [VIEW_OPEN, VIEW_CLOSE] if views > 1 else []
        if missing := [word for word in needed if word not in tokenizer.get_vocab()]:
            raise VisavisError(
                f"the tokenizer of {len(tokenizer)} words lacks {missing[0]!r}, which a chat with images of"
                f" {image_tokens} tokens needs",
                fix="take the tokenizer that was saved with the model, or add the words by `extend_vocabulary`",
            )
        self.tokenizer = tokenizer
        self.views = views
        self.image_open = tokenizer.convert_tokens_to_ids(IMAGE_OPEN)
        self.image_close = tokenizer.convert_tokens_to_ids(IMAGE_CLOSE)
        self.queries = tuple(tokenizer.convert_tokens_to_ids(query_token(i)) for i in range(image_tokens))
        self.eos = tokenizer.eos_token_id
        self._cache: dict[str, tuple[int, ...]] = {}

    def ids(self, text: str) -> tuple[int, ...]:
        """Returns the token ids of a text, without BOS or EOS."""
        if text not in self._cache:
            self._cache[text] = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        return self._cache[text]

    def plain_ids(self, text: str) -> tuple[int, ...]:
        """Returns the token ids of what somebody said, in which no tag (`<img>`, `[INST]`, `</s>`) is one."""
        harmless = _INSTRUCTION.sub(r"[ \1 ]", text)
        return tuple(self.tokenizer.encode(harmless, add_special_tokens=False, split_special_tokens=True))

    def save_pretrained(self, folder: Path) -> None:
        """Writes `template.json`: what a chat of this template looks like to the model."""
        write_json(folder / TEMPLATE_FILE, self._facts())

    def check(self, folder: Path) -> None:
        """Compares the template with the one a checkpoint was tuned with; one without `template.json` passes.

        Raises:
            VisavisError: If layout, image tokens or vocabulary differ.
        """
        path = folder / TEMPLATE_FILE
        if not path.is_file():
            return
        theirs, ours = read_json(path), self._facts()
        if differing := sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name)):
            was, now = ({name: facts.get(name) for name in differing} for facts in (theirs, ours))
            raise VisavisError(
                f"the checkpoint in {folder} was tuned with the template {was}, but the recipe's pack gives {now}",
                fix="start from a checkpoint that was tuned from this pack, or name the pack it was tuned from",
            )

    def _facts(self) -> dict[str, Any]:
        words = json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode()
        return {
            "instruction": f"{INSTRUCTION_OPEN}…{INSTRUCTION_CLOSE}",
            "turn_separator": TURN_SEPARATOR,
            "image_tokens": len(self.queries),
            "words": len(self.tokenizer),
            "vocabulary": sha256_bytes(words),
        }

    def _views(self, part: dict[str, Any]) -> list[tuple[int, float, float]]:
        return part.get("views") or [(part["image"], *WHOLE)] * (self.views > 1)

    def segments(self, turns: list[Turn], *, end: bool = True) -> list[Segment]:
        """Renders a conversation.

        Args:
            turns: User and assistant turns in order.
            end: Whether a closing EOS is supervised after the last assistant turn.

        Returns:
            Segments in order. After a final user turn the text ends with the closing tag, ready for a response.
        """
        output = [segment for number, turn in enumerate(turns) for segment in self.of_turn(turn, number)]
        if end and turns and turns[-1]["role"] == "assistant":
            output.append(TextSegment((self.eos,), True))
        return output

    def of_turn(self, turn: Turn, number: int) -> list[Segment]:
        """Renders one turn, the `number`-th of its chat; what stands before it does not matter."""
        output: list[Segment] = [] if number else [TextSegment((self.tokenizer.bos_token_id,), False)]
        user = turn["role"] == "user"
        if user:
            opening = (TURN_SEPARATOR if number else "") + INSTRUCTION_OPEN
            output.append(TextSegment(self.ids(opening), False))
        for part in turn["content"]:
            if part["type"] == "text":
                output.append(TextSegment(self.plain_ids(part["text"]), not user))
                continue
            for view, x, y in self._views(part) if user else ():
                output.append(TextSegment(self.ids(VIEW_OPEN), False))
                output.append(ImageSegment(view, False, (x, y)))
                output.append(TextSegment(self.ids(VIEW_CLOSE), False))
            output.append(TextSegment((self.image_open,), not user))
            output.append(ImageSegment(part["image"], not user))
            output.append(TextSegment((self.image_close,), False))
        if user:
            output.append(TextSegment(self.ids(INSTRUCTION_CLOSE), False))
        return output


def user(*content: str | int | dict[str, Any]) -> Turn:
    """Returns a user turn; strings become text, integers pictures, parts stay as they are."""
    return {"role": "user", "content": [_part(value) for value in content]}


def assistant(*content: str | int) -> Turn:
    """Returns an assistant turn; strings become text, integers pictures."""
    return {"role": "assistant", "content": [_part(value) for value in content]}


def _part(value: str | int | dict[str, Any]) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {"type": "text", "text": value} if isinstance(value, str) else {"type": "image", "image": value}
