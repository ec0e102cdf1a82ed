"""SEED-X's words on top of a LLaMA's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from visavis.chat.template import RESPONSE, Template
from visavis.chat.vocabulary import added_words, extend_vocabulary
from visavis.errors import VisavisError
from visavis.pretrain.vocabulary import build_tokenizer


def llama(words: int) -> tuple[PreTrainedTokenizerFast, LlamaForCausalLM]:
    plain = Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="w1", eos_token="w2")
    config = LlamaConfig(
        vocab_size=words, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    return tokenizer, LlamaForCausalLM(config)


@pytest.mark.parametrize("words", [32_000, 40])
def test_rows_of_new_words_are_the_mean_of_the_old(words: int) -> None:
    tokenizer, llm = llama(words)
    embedding, head = llm.get_input_embeddings(), llm.get_output_embeddings()
    old_in, old_out = embedding.weight.detach().clone(), head.weight.detach().clone()
    assert extend_vocabulary(tokenizer, llm) == 330
    new_in, new_out = llm.get_input_embeddings().weight, llm.get_output_embeddings().weight
    assert len(tokenizer) == llm.config.vocab_size == len(new_in) == len(new_out) == words + 330
    torch.testing.assert_close(new_in[:words], old_in)
    torch.testing.assert_close(new_in[words:], old_in.mean(0).expand(330, -1))
    torch.testing.assert_close(new_out[words:], 3 * old_out.mean(0).expand(330, -1))
    assert tokenizer.convert_tokens_to_ids(["<img_00000>", "<img_00099>", "<img>"]) == [
        words,
        words + 99,
        words + 324,
    ]
    assert extend_vocabulary(tokenizer, llm) == 0


def test_each_added_word_is_one_token_and_blocks_of_256_fit() -> None:
    tokenizer, llm = llama(40)
    extend_vocabulary(tokenizer, llm, queries=256)
    for word in added_words(256):
        assert len(tokenizer.encode(word, add_special_tokens=False)) == 1
    assert len(Template(tokenizer, 256, views=2).queries) == 256


def test_a_tokenizer_without_the_words_is_refused() -> None:
    with pytest.raises(VisavisError, match=r"40 words lacks '<img>'.*64 tokens"):
        Template(llama(40)[0], 64)
    with pytest.raises(VisavisError, match="lacks '<patch>'"):
        Template(build_tokenizer([RESPONSE], 64), 64, views=2)


def test_a_checkpoint_of_another_template_or_vocabulary_is_refused(tmp_path: Path) -> None:
    ours, theirs = build_tokenizer([RESPONSE], 64), build_tokenizer([RESPONSE, "Olivia"], 64)
    Template(theirs, 64).save_pretrained(tmp_path)
    Template(theirs, 64, views=1).check(tmp_path)
    with pytest.raises(VisavisError) as told:
        Template(ours, 64).check(tmp_path)
    assert f"'words': {len(theirs)}" in str(told.value)
    assert f"'words': {len(ours)}" in str(told.value)
    with pytest.raises(VisavisError, match=r"\{'image_tokens': 64\}.*\{'image_tokens': 16\}"):
        Template(theirs, 16).check(tmp_path)
    Template(ours, 64).check(tmp_path / "nothing")
