"""The MLLM: parity with transformers, one pass over an image block, gradients of every batch, losses, views."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from visavis.chat.layout import collate, lay_out
from visavis.chat.template import RESPONSE, Template, Turn, assistant, user
from visavis.chat.vocabulary import added_words
from visavis.models.connectors import PooledConnector, ViewPosition
from visavis.models.image_encoder import pool_tokens
from visavis.models.mllm import IGNORED, Mllm, MllmBatch, MllmConfig
from visavis.pretrain.vocabulary import build_tokenizer

IMAGE_TOKENS, TOKEN_DIM = 64, 8
SHAPE = MllmConfig(token_dim=TOKEN_DIM, connector_heads=2, view_positions=True)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = build_tokenizer([RESPONSE, "who is on the left Olivia"], IMAGE_TOKENS)
    tokenizer.add_tokens([w for w in added_words() if w not in tokenizer.get_vocab()], special_tokens=True)
    return tokenizer


def mllm_of(words: int, shape: MllmConfig = SHAPE, tied: bool = False) -> Mllm:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    model = Mllm(LlamaForCausalLM(config), shape).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def batch_of(template: Template, *chats: list[Turn], tokens: int = 4 * IMAGE_TOKENS) -> MllmBatch:
    """Chats with random pictures."""
    rng = np.random.default_rng(3)
    pictures = [
        [
            rng.normal(size=(tokens, TOKEN_DIM)).astype(np.float32)
            for turn in turns
            for part in turn["content"]
            if part["type"] == "image"
        ]
        for turns in chats
    ]
    layouts = [lay_out(template.segments(turns), template) for turns in chats]
    return collate(layouts, pictures, len(template.queries), [[1.0] * len(p) for p in pictures])


WORDS = [user("who is on the left"), assistant("Olivia")]
READ = [user(0, "who is on the left"), assistant("Olivia")]
WRITE = [user("Olivia"), assistant(RESPONSE, 0)]
BOTH = [user(0, "Olivia on the left"), assistant(RESPONSE, 1)]


@torch.no_grad()
def test_without_images_it_is_the_llama_of_transformers(tokenizer: PreTrainedTokenizerBase) -> None:
    model, template = mllm_of(len(tokenizer)), Template(tokenizer, IMAGE_TOKENS)
    longer = [user("who is on the left Olivia"), assistant("Olivia is on the left")]
    batch = batch_of(template, WORDS, longer)
    hidden = model.hidden_states(batch)
    for row, length in enumerate([int((ids != tokenizer.pad_token_id).sum()) for ids in batch.input_ids]):
        ids = batch.input_ids[row : row + 1, :length]
        expected = model.llm(ids, output_hidden_states=True)
        torch.testing.assert_close(
            hidden[row : row + 1, :length], expected.hidden_states[-1], atol=1e-5, rtol=1e-5
        )
    labels = torch.full_like(batch.labels, IGNORED)
    labels[:, 1:] = batch.labels[:, :-1]
    shifted = model.llm(batch.input_ids, attention_mask=batch.mask.any(1).long(), labels=labels)
    torch.testing.assert_close(model(batch).text, shifted.loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("output", ["resampler", "linear"])
@torch.no_grad()
def test_one_pass_over_the_queries_is_64_forced_steps(
    tokenizer: PreTrainedTokenizerBase, output: str
) -> None:
    model = mllm_of(len(tokenizer), replace(SHAPE, output_connector=output))
    template = Template(tokenizer, IMAGE_TOKENS)
    batch = batch_of(template, BOTH)
    hidden = model.hidden_states(batch)
    block = (batch.write[0] >= 0).nonzero()[:, 0]
    assert len(block) == IMAGE_TOKENS
    embeddings, start = model.embed(batch), int(block[0])
    cache = DynamicCache()
    model.llm.model(inputs_embeds=embeddings[:, :start], past_key_values=cache, use_cache=True)
    steps: list[Tensor] = []
    for place in block:
        step = model.llm.model(
            inputs_embeds=embeddings[:, place : place + 1], past_key_values=cache, use_cache=True
        )
        steps.append(step.last_hidden_state)
    forced = torch.cat(steps, dim=1)
    torch.testing.assert_close(hidden[:, block], forced, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        model.predict_images(hidden, batch.write), model.connectors["output"](forced), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("chat", "idle"),
    [(WORDS, {"input", "output", "view"}), (READ, {"output"}), (WRITE, {"input", "view"}), (BOTH, set())],
    ids=["words", "read", "write", "both"],
)
@pytest.mark.parametrize("connectors", [("resampler", "resampler"), ("pool", "linear")])
def test_every_batch_gives_every_trained_weight_a_gradient(
    tokenizer: PreTrainedTokenizerBase, chat: list[Turn], idle: set[str], connectors: tuple[str, str]
) -> None:
    shape = replace(SHAPE, input_connector=connectors[0], output_connector=connectors[1], token_shift=2)
    model, template = mllm_of(len(tokenizer), shape), Template(tokenizer, IMAGE_TOKENS)
    model.train()
    loss = model(batch_of(template, chat))
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert torch.equal(loss.total.detach(), shape.lm_weight * loss.text + shape.rec_weight * loss.image)
    moved = {
        part
        for part, module in model.connectors.items()
        if any(bool(p.grad.abs().any()) for p in module.parameters() if p.grad is not None)
    }
    assert moved == set(model.connectors) - idle


def test_frozen_parts_get_no_gradient(tokenizer: PreTrainedTokenizerBase) -> None:
    model, template = mllm_of(len(tokenizer)), Template(tokenizer, IMAGE_TOKENS)
    model.llm.requires_grad_(False)
    model(batch_of(template, BOTH)).total.backward()
    assert all(parameter.grad is None for parameter in model.llm.parameters())
    assert all(p.grad is not None for p in model.connectors.parameters() if p.requires_grad)


@pytest.mark.parametrize("regression", ["mse", "cosine"])
@torch.no_grad()
def test_the_regression_is_to_pooled_tokens(tokenizer: PreTrainedTokenizerBase, regression: str) -> None:
    model = mllm_of(len(tokenizer), replace(SHAPE, regression=regression))
    template = Template(tokenizer, IMAGE_TOKENS)
    batch = batch_of(template, BOTH, WRITE)
    predicted = model.predict_images(model.hidden_states(batch), batch.write)
    target = pool_tokens(batch.pictures)[[1, 2]]
    if regression == "mse":
        expected = functional.mse_loss(predicted, target)
    else:
        expected = (1 - functional.cosine_similarity(predicted, target, dim=-1)).mean()
    loss = model(batch)
    torch.testing.assert_close(loss.image, expected)
    torch.testing.assert_close(loss.total, loss.text + 6 * loss.image)


def test_another_regression_is_refused() -> None:
    with pytest.raises(ValueError, match="'l1' is neither"):
        MllmConfig(regression="l1")


@torch.no_grad()
def test_pooled_and_whole_tokens_are_read_alike_by_pooling(tokenizer: PreTrainedTokenizerBase) -> None:
    model = mllm_of(len(tokenizer), replace(SHAPE, input_connector="pool"))
    template = Template(tokenizer, IMAGE_TOKENS)
    whole = batch_of(template, BOTH)
    pooled = replace(whole, pictures=pool_tokens(whole.pictures))
    torch.testing.assert_close(model(whole).total, model(pooled).total)


@torch.no_grad()
def test_blocks_of_all_tokens_pool_nothing() -> None:
    words = build_tokenizer([RESPONSE, "who is on the left Olivia"], 256)
    shape = replace(SHAPE, image_tokens=256, input_connector="pool")
    model, template = mllm_of(len(words), shape), Template(words, 256)
    batch = batch_of(template, BOTH)
    assert int((batch.read >= 0).sum()) == int((batch.write >= 0).sum()) == 256
    read = model.embed(batch)[batch.read >= 0]
    connector, view = model.connectors["input"], model.connectors["view"]
    assert isinstance(connector, PooledConnector)
    assert isinstance(view, ViewPosition)
    expected = connector.linear(batch.pictures[0]) + connector.position + view(torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(read, expected)
    predicted = model.predict_images(model.hidden_states(batch), batch.write)
    torch.testing.assert_close(model(batch).image, functional.mse_loss(predicted[0], batch.pictures[1]))


@torch.no_grad()
def test_the_place_of_a_view_is_added_to_what_is_read(tokenizer: PreTrainedTokenizerBase) -> None:
    model, template = mllm_of(len(tokenizer)), Template(tokenizer, IMAGE_TOKENS)
    chat = [user(0, "Olivia"), assistant("Olivia")]
    chat[0]["content"][0]["views"] = [[1, 0.25, 0.75]]
    rng = np.random.default_rng(0)
    pictures = [rng.normal(size=(256, TOKEN_DIM)).astype(np.float32) for _ in range(2)]
    batch = collate([lay_out(template.segments(chat), template)], [pictures], IMAGE_TOKENS, [[1.0, 1.0]])
    read = model.embed(batch)[0, batch.read[0] >= 0].view(2, IMAGE_TOKENS, -1)
    view = model.connectors["view"]
    assert isinstance(view, ViewPosition)
    table = view.embed
    images = model.connectors["input"](batch.pictures)
    # The patch stands before the picture it is a part of.
    of_patch = (0.25 * table[0] + 0.75 * table[1] + 0.75 * table[2] + 0.25 * table[3]) / 2
    torch.testing.assert_close(read[0], images[1] + of_patch)
    torch.testing.assert_close(read[1], images[0] + table.sum(0) / 4)


@torch.no_grad()
def test_two_views_read_a_picture_twice_between_their_tags(tokenizer: PreTrainedTokenizerBase) -> None:
    template = Template(tokenizer, IMAGE_TOKENS, views=2)
    batch = batch_of(template, BOTH)
    words = tokenizer.convert_ids_to_tokens(batch.input_ids[0])
    tags = [word for word in words if word in ("<patch>", "</patch>", "<img>", "</img>")]
    assert tags == ["<patch>", "</patch>", "<img>", "</img>", "<img>"]
    first = words.index("<patch>")
    assert words.index("<img>", first) - first == IMAGE_TOKENS + 2
    assert words.index("</img>", first) - first == 2 * IMAGE_TOKENS + 3
    read = batch.read[0][batch.read[0] >= 0].view(2, IMAGE_TOKENS)
    assert torch.equal(read[0], read[1])


def test_what_is_taught_in_a_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    template = Template(tokenizer, IMAGE_TOKENS)
    chat = [
        user(0, "who is on the left"),
        assistant("Olivia", 1),
        user("Olivia"),
        assistant("Olivia is on the left"),
    ]
    batch = batch_of(template, chat)
    taught = tokenizer.convert_ids_to_tokens(batch.labels[0][batch.labels[0] != IGNORED])
    spoken = tokenizer.convert_ids_to_tokens(
        [*template.ids("Olivia"), template.image_open, *template.ids("Olivia is on the left"), template.eos]
    )
    assert taught == spoken
    block = (batch.write[0] >= 0) | (batch.read[0] >= 0)
    assert bool((batch.labels[0][block] == IGNORED).all())
    assert "</img>" not in taught


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_the_llama_is_saved_as_transformers_saves_it(
    tmp_path: Path, tied: bool, dtype: torch.dtype | None
) -> None:
    model = mllm_of(20, tied=tied)
    model.save_pretrained(tmp_path / "ours", dtype)
    copy.deepcopy(model.llm).to(dtype or torch.float32).save_pretrained(tmp_path / "theirs")
    ours, theirs = tmp_path / "ours" / "llm", tmp_path / "theirs"
    assert sorted(path.name for path in ours.iterdir()) == sorted(path.name for path in theirs.iterdir())
    for name in ("config.json", "generation_config.json"):
        assert json.loads((ours / name).read_text()) == json.loads((theirs / name).read_text())
    written, expected = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], weight) for name, weight in expected.items())
    read = LlamaForCausalLM.from_pretrained(ours, dtype=torch.float32).state_dict()
    for name, weight in model.llm.state_dict().items():
        assert torch.equal(read[name], weight.to(dtype or torch.float32).float())
