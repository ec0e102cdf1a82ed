"""Chats in one row, all rounds at once, give the loss and gradients of one plain forward for each round."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from visavis.chat.layout import collate, lay_out
from visavis.chat.template import RESPONSE, ImageSegment, Segment, Template, Turn, assistant, user
from visavis.data.published.tokens import TokenStore
from visavis.errors import VisavisError
from visavis.models.mllm import Mllm, MllmConfig, loss_counts
from visavis.pretrain.vocabulary import build_tokenizer
from visavis.training import detokenizer
from visavis.training.config import StageConfig
from visavis.training.detokenizer import predicted_tokens
from visavis.training.mllm import chat_task, tune
from visavis.training.packing import TOO_LONG, linear_length_of, pack, quickest_rows

IMAGE_TOKENS, DIM, LATER = 16, 6, 3.0
ASK = "Generate a close-up photo of {}"
CHATS: list[list[Turn]] = [
    [
        user("two friends, Julian and Olivia on the left"),
        assistant(RESPONSE, 0),
        user(ASK.format("Olivia")),
        assistant(RESPONSE, 1),
        user(ASK.format("Julian")),
        assistant(RESPONSE, 2),
    ],
    [
        user(0, "who"),
        assistant("Olivia"),
        user(ASK.format("Olivia")),
        assistant(1),
        user("who"),
        assistant("Olivia on the left"),
    ],
    [user("two friends"), assistant(0), user(1, ASK.format("Julian")), assistant(2)],
    [user("Olivia"), assistant(RESPONSE, 0)],
]


@pytest.fixture(scope="module")
def template() -> Template:
    words = [RESPONSE, ASK, "two friends, Julian and Olivia on the left who"]
    return Template(build_tokenizer(words, IMAGE_TOKENS), IMAGE_TOKENS)


@pytest.fixture(params=[0, 2], ids=["plain", "token_shift"])
def model(request: pytest.FixtureRequest, template: Template) -> Mllm:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(template.tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    shape = MllmConfig(
        token_dim=DIM,
        image_tokens=IMAGE_TOKENS,
        input_connector="pool",
        output_connector="linear",
        token_shift=request.param,
    )
    model = Mllm(LlamaForCausalLM(config), shape).train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def store() -> TokenStore:
    rng = np.random.default_rng(0)
    samples, rows = [], 0
    for number, turns in enumerate(CHATS):
        count = 1 + max(part.get("image", -1) for turn in turns for part in turn["content"])
        sample = {"id": str(number), "set": "rounds", "split": "train", "turns": turns}
        samples.append({**sample, "rows": list(range(rows, rows + count))})
        rows += count
    tokens = rng.normal(size=(rows, IMAGE_TOKENS, DIM)).astype(np.float16)
    return TokenStore(tokens, np.zeros((rows, 1, 2, 2)), np.zeros((rows, 4, 4, 3)), samples)


def task_of(model: Mllm, template: Template, store: TokenStore, **settings: object):
    config = StageConfig.model_validate(
        {"sets": {"rounds": 1.0}, "batch_size": 4, "later_round_weight": LATER, "max_length": 400} | settings
    )
    return chat_task(model, template, store, config)


def plain_loss(model: Mllm, template: Template, store: TokenStore, totals: dict[str, float]) -> Tensor:
    """One forward for each answer: what came before is read, causal attention, no mask, no padding, no packing."""
    total = torch.zeros(())
    for sample in store.samples:
        pictures = torch.from_numpy(store.tokens[sample["rows"]].astype(np.float32))
        painted = 0
        for end in range(1, len(sample["turns"]), 2):
            history = template.segments(sample["turns"][:end], end=False)
            answer = template.segments(sample["turns"][: end + 1])[len(history) :]
            is_painted = any(isinstance(segment, ImageSegment) for segment in answer)
            weight = LATER if is_painted and painted else 1.0
            total = total + answer_loss(model, template, history, answer, pictures, weight, totals)
            painted += is_painted
    return total


def answer_loss(
    model: Mllm,
    template: Template,
    history: list[Segment],
    answer: list[Segment],
    pictures: Tensor,
    weight: float,
    totals: dict[str, float],
) -> Tensor:
    words = model.llm.get_input_embeddings()
    pieces = [
        model.connectors["input"](pictures[segment.picture][None])[0]
        if isinstance(segment, ImageSegment)
        else words(torch.tensor(segment.ids))
        for segment in history
    ]
    start, taught, target = sum(len(piece) for piece in pieces), list[int](), None
    for segment in answer:
        if isinstance(segment, ImageSegment):
            pieces.append(words(torch.tensor(template.queries)))
            target = pictures[segment.picture]
            break
        pieces.append(words(torch.tensor(segment.ids)))
        taught += segment.ids
    embeddings = torch.cat(pieces)[None]
    if "shift" in model.connectors:
        chain = torch.arange(-1, embeddings.shape[1] - 1)[None]
        embeddings = model.connectors["shift"](embeddings, chain)
    hidden = model.llm.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state[0]
    logits = model.llm.lm_head(hidden[start - 1 : start - 1 + len(taught)])
    loss = functional.cross_entropy(logits, torch.tensor(taught), reduction="sum") / totals["text"]
    if target is not None:
        predicted = model.connectors["output"](hidden[-IMAGE_TOKENS:])
        error = (predicted - target).square().mean()
        loss = loss + model.config.rec_weight * weight * error / totals["image"]
    return loss


def test_packed_rounds_teach_what_plain_forwards_teach(
    model: Mllm, template: Template, store: TokenStore
) -> None:
    task, dropped = task_of(model, template, store)
    batch = task.collate(store.samples)
    assert dropped == 0
    assert len(batch.input_ids) < len(CHATS), "some chats share a row"
    totals = task.counts(batch)
    loss, _ = task.loss(model, batch, totals)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    expected = plain_loss(model, template, store, totals)
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert float(found["llm.model.embed_tokens.weight"].abs().max()) > 1e-3
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-5, msg=name)


@torch.no_grad()
def test_packed_hidden_states_are_those_of_a_chat_with_a_cache(
    model: Mllm, template: Template, store: TokenStore
) -> None:
    layouts = [lay_out(template.segments(sample["turns"]), template) for sample in store.samples]
    pictures = [list(store.tokens[sample["rows"]]) for sample in store.samples]
    weights = [[1.0] * len(group) for group in pictures]
    rows = [[1, 3], [0, 2]]
    packed = model.hidden_states(collate(layouts, pictures, IMAGE_TOKENS, weights, rows))
    for row, numbers in enumerate(rows):
        start = 0
        for number in numbers:
            size = len(layouts[number])
            alone = collate([layouts[number]], [pictures[number]], IMAGE_TOKENS, [weights[number]])
            block = torch.from_numpy(layouts[number].block)
            found = packed[row, start : start + size]
            torch.testing.assert_close(found, walked(model, alone, block), atol=2e-5, rtol=1e-4)
            start += size


def walked(model: Mllm, batch, block: Tensor) -> Tensor:
    """Feeds one chat piece by piece into a cache; the queries of an image are dropped from it once it is painted."""
    cache, hidden, embeddings = DynamicCache(), [], model.embed(batch)
    cuts = [0, *(torch.nonzero(block.diff())[:, 0] + 1).tolist(), len(block)]
    for start, end in pairwise(cuts):
        output = model.llm.model(
            inputs_embeds=embeddings[:, start:end],
            position_ids=batch.position_ids[:, start:end],
            past_key_values=cache,
            use_cache=True,
        )
        hidden.append(output.last_hidden_state[0])
        if block[start] >= 0:
            cache.crop(-IMAGE_TOKENS)
    return torch.cat(hidden)


def test_a_chat_that_is_too_long_is_counted_and_never_cut(
    model: Mllm, template: Template, store: TokenStore
) -> None:
    lengths = [len(lay_out(template.segments(turns), template)) for turns in CHATS]
    task, dropped = task_of(model, template, store, max_length=sorted(lengths)[2])
    assert dropped == 1
    assert sorted(sample["id"] for sample in task.pools["rounds"]) == ["1", "2", "3"]
    assert (
        sorted(len(lay_out(template.segments(s["turns"]), template)) for s in task.pools["rounds"])
        == (sorted(lengths)[:3])
    )
    with pytest.raises(VisavisError, match=r"all 4 .* more than max_length=5 "):
        task_of(model, template, store, max_length=5)


def test_a_stage_tells_how_many_chats_it_left_out(
    model: Mllm, template: Template, store: TokenStore, tmp_path: Path
) -> None:
    longest = max(len(lay_out(template.segments(turns), template)) for turns in CHATS)
    config = StageConfig(sets={"rounds": 1.0}, steps=1, batch_size=2, max_length=longest - 1)
    assert tune(model, template, store, config, tmp_path)[TOO_LONG] == 1


def test_what_the_next_step_reads_is_fetched_meanwhile(
    model: Mllm, template: Template, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = task_of(model, template, store, batch_size=2)
    fetched: list[list[int]] = []
    monkeypatch.setattr(TokenStore, "prefetch", lambda _, rows: fetched.append(list(rows)))
    drawn = [task.draw(step, np.random.default_rng(step)) for step in range(4)]
    used = [[row for sample in samples for row in sample["rows"]] for samples in drawn]
    assert fetched[:-1] == used[1:]


def test_a_part_without_chats_has_no_loss(model: Mllm, template: Template, store: TokenStore) -> None:
    task, _ = task_of(model, template, store)
    batch = task.collate([])
    assert task.counts(batch) == {"text": 0.0, "image": 0.0, "tokens": 0.0}
    loss, _ = task.loss(model, batch, {"text": 5.0, "image": 2.0})
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_parts_of_a_step_sum_to_the_step(model: Mllm, template: Template, store: TokenStore) -> None:
    task, _ = task_of(model, template, store)
    whole = task.collate(store.samples)
    totals = loss_counts(whole, IMAGE_TOKENS)
    parts = [task.collate(store.samples[part]) for part in (slice(0, 1), slice(1, 4))]
    summed = sum(task.loss(model, part, totals)[0].item() for part in parts)
    assert summed == pytest.approx(task.loss(model, whole, totals)[0].item(), abs=1e-5)


def test_best_fit_decreasing() -> None:
    assert pack([4, 7, 3, 6, 5], 10) == [[1, 2], [3, 0], [4]]
    assert pack([5, 5, 5], 10) == [[0, 1], [2]]
    assert pack([], 10) == []
    with pytest.raises(ValueError, match="chat 1 has 11 tokens, a row holds 10"):
        pack([3, 11], 10)


def test_rows_grow_only_where_that_is_quicker() -> None:
    lengths = [100] * 7 + [60] * 6
    narrow = quickest_rows(lengths, 1000, linear_length=10.0)
    assert all(sum(lengths[n] for n in row) <= 100 for row in narrow), "attention is dear: rows stay short"
    wide = quickest_rows(lengths, 1000, linear_length=1e6)
    longest = max(sum(lengths[n] for n in row) for row in wide)
    assert len(wide) * longest < len(narrow) * 100, "attention is cheap: less padding counts"
    for rows in (narrow, wide):
        assert sorted(n for row in rows for n in row) == list(range(13))
    assert quickest_rows([], 10, 1.0) == []


def test_attention_costs_as_much_as_the_linear_maps_at_that_length() -> None:
    config = LlamaConfig(hidden_size=64, intermediate_size=160, num_attention_heads=4)
    length = linear_length_of(config)
    linear = 2 * (4 * 64 * 64 + 3 * 64 * 160)
    assert 4 * 64 * length == pytest.approx(linear)


def test_predictions_come_in_the_order_of_the_chats_however_they_are_batched(
    model: Mllm, template: Template, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detokenizer, "_PREDICT_BATCH", 2)
    seen = list[tuple[int, int]]()
    said, rows = predicted_tokens(
        model.eval(), template, store, store.samples, lambda *done: seen.append(done)
    )
    alone = [predicted_tokens(model, template, store, [sample]) for sample in store.samples]
    np.testing.assert_allclose(
        said.astype(np.float32),
        np.concatenate([tokens for tokens, _ in alone]).astype(np.float32),
        atol=4e-3,
    )
    assert rows.tolist() == [int(row) for _, own in alone for row in own]
    assert seen == [(2, 4), (4, 4)]
