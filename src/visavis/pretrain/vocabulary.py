"""The small pack's tokenizer: one token for each word of its world, SEED-X's special tokens beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from visavis.chat.template import IMAGE_CLOSE, IMAGE_OPEN, query_token

BOS, EOS, PAD, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"
_WORD = re.compile(r"[a-z0-9'-]+|[^\sa-z0-9]")


def words(text: str) -> list[str]:
    """Splits a text as the tokenizer does: lower-case words and single punctuation marks."""
    return _WORD.findall(text.lower())


def build_tokenizer(texts: Iterable[str], image_tokens: int, end: bool = False) -> PreTrainedTokenizerFast:
    """Builds a word-level tokenizer that knows every word of `texts`.

    Args:
        texts: All phrases of the closed world.
        image_tokens: Number of query tokens.
        end: Whether to close every text with EOS.
    """
    known = sorted({word for text in texts for word in words(text)})
    specials = [PAD, UNKNOWN, BOS, EOS, "[INST]", "[/INST]", IMAGE_OPEN, IMAGE_CLOSE, "\n"]
    specials += [query_token(i) for i in range(image_tokens)]
    vocabulary = {token: index for index, token in enumerate([*specials, *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[a-z0-9'\-]+|[^\sa-z0-9]"), behavior="isolated"),
            pre_tokenizers.WhitespaceSplit(),
        ]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}" if end else f"{BOS} $A",
        pair=None,
        special_tokens=[(BOS, vocabulary[BOS]), (EOS, vocabulary[EOS])],
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=UNKNOWN
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the tokenizer in transformers' layout."""
    tokenizer.save_pretrained(folder)
