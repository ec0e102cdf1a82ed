"""A new MLLM looks where it is told to before it has learned anything."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from visavis.chat.layout import collate, lay_out
from visavis.chat.template import Template, assistant, user
from visavis.models.mllm import Mllm, MllmBatch
from visavis.pretrain.geometry import initialise_locally, place_code
from visavis.pretrain.mllm import all_texts, build_model
from visavis.pretrain.skills import SIDES
from visavis.pretrain.vocabulary import build_tokenizer
from visavis.storybook.captions import NAMES

BOXES = {"left": (6.0, 20.0, 28.0, 44.0), "right": (36.0, 20.0, 58.0, 44.0)}


@pytest.fixture(scope="module")
def started() -> tuple[Mllm, Template, MllmBatch]:
    tokenizer = build_tokenizer(all_texts(), 64)
    template = Template(tokenizer, 64)
    model = build_model(tokenizer, 64).eval()
    names = sorted({i for name in NAMES for i in template.ids(name)})
    initialise_locally(model, template.queries, names, sorted(template.ids(" ".join(SIDES))), BOXES)
    caption = "two friends, olivia on the right and julian on the left."
    turns = [user(caption, 0, "Show the face of julian."), assistant(1)]
    rng = np.random.default_rng(0)
    pictures = [rng.normal(size=(64, 64)) for _ in range(2)]
    layout = lay_out(template.segments(turns), template)
    return model, template, collate([layout], [pictures], 64, [[1.0, 1.0]])


def _attention(model: Mllm, batch: MllmBatch) -> torch.Tensor:
    """Attention of the first layer, `[heads, L, L]`."""
    block = model.llm.model.layers[0]
    inputs = block.input_layernorm(model.embed(batch))
    shape = (*inputs.shape[:2], -1, block.self_attn.head_dim)
    query, key = (
        layer(inputs).view(shape).transpose(1, 2)
        for layer in (block.self_attn.q_proj, block.self_attn.k_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, *model.llm.model.rotary_emb(inputs, batch.position_ids))
    logits = (query @ key.transpose(2, 3))[0] * block.self_attn.scaling
    return logits.masked_fill(~batch.mask[0], -torch.inf).softmax(-1)


@torch.no_grad()
def test_heads_of_a_side_read_that_side(started: tuple[Mllm, Template, MllmBatch]) -> None:
    model, _, batch = started
    attention = _attention(model, batch)
    writes, reads = (index[0].nonzero()[:, 0] for index in (batch.write >= 0, batch.read >= 0))
    columns = (torch.arange(64) % 4 * 16 + 8).float()
    for head, side in enumerate(SIDES):
        seen = attention[head][writes][:, reads]
        place = (seen * columns).sum(1) / seen.sum(1)
        middle = (BOXES[side][0] + BOXES[side][2]) / 2
        assert abs(float(place.mean()) - middle) < 6.0


@torch.no_grad()
def test_a_name_finds_what_was_told_by_it(started: tuple[Mllm, Template, MllmBatch]) -> None:
    model, template, batch = started
    seen = _attention(model, batch)[2]
    ids = batch.input_ids[0]
    asked = int((ids == template.ids("julian")[0]).nonzero()[-1, 0])
    own, others = (int((ids == template.ids(side)[0]).nonzero()[0, 0]) for side in ("left", "right"))
    assert int(seen[asked].argmax()) == own
    assert float(seen[asked, own]) > 5 * float(seen[asked, others])


def test_near_places_have_codes_alike() -> None:
    rows = torch.arange(0.0, 64.0, 4.0)
    codes = place_code(rows, torch.zeros_like(rows))
    alike = codes @ codes[0]
    assert all(a > b for a, b in pairwise(alike[:3].tolist()))
    assert int(alike.argmax()) == 0
