"""What a model says whose vocabulary has no capitals, as one writes it: the pack's words are all in lower case."""

from __future__ import annotations

import re
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_DETACHED = re.compile(r" +([:;])")
_BEGINNING = re.compile(r"(?:^|[.!?]\s+)([^\W\d_])")


def is_uncased(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer makes no difference between "I" and "i"."""
    return bool(tokenizer.tokenize("I") == tokenizer.tokenize("i"))


def with_capitals(text: str, said: Iterable[str]) -> str:
    """Gives sentences their first capital, names those that they have in what was said, and colons their place.

    Args:
        text: In lower case.
        said: Texts of the chat; a word that has a capital there behind the first word is taken to be a name.
    """
    names = {"i": "I"}
    for words in (_WORD.findall(part) for part in said):
        names |= {word.lower(): word for word in words[1:] if word[0].isupper()}
    text = _DETACHED.sub(r"\1", text)
    text = _WORD.sub(lambda match: names.get(match.group(), match.group()), text)
    return _BEGINNING.sub(lambda match: match.group().upper(), text)
