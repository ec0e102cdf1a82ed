"""What a model says whose vocabulary has no capitals, as one writes it: the pack's words are all in lower case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from transformers import PreTrainedTokenizerBase

_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_DETACHED = re.compile(r" +([:;])")
_BEGINNING = re.compile(r"(?:^|[.!?]\s+)([^\W\d_])")


def is_uncased(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer makes no difference between "I" and "i"."""
    return bool(tokenizer.tokenize("I") == tokenizer.tokenize("i"))


def capitals_in(said: Iterable[str]) -> dict[str, str]:
    """Returns the words of a chat that have a capital though they are not the first of their text, by lower case."""
    words = (word for text in said for word in _WORD.findall(text)[1:])
    return {"i": "I"} | {word.lower(): word for word in words if word[0].isupper()}


def with_capitals(text: str, names: Mapping[str, str]) -> str:
    """Gives sentences their first capital, names theirs, and colons their place.

    Args:
        text: In lower case.
        names: How words are written that have capitals, see `capitals_in`.
    """
    text = _DETACHED.sub(r"\1", text)
    text = _WORD.sub(lambda match: names.get(match.group(), match.group()), text)
    return _BEGINNING.sub(lambda match: match.group().upper(), text)
