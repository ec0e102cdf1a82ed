"""Views of a picture: the grid, the parts, and a chat that reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from visavis.chat.model import ChatModel
from visavis.chat.session import ChatSession
from visavis.chat.talker import turns_of
from visavis.chat.template import RESPONSE
from visavis.chat.views import grid_of, parts_of
from visavis.chat.vocabulary import extend_vocabulary
from visavis.models.image_encoder import ImageEncoder, ImageEncoderConfig
from visavis.models.mllm import Mllm, MllmConfig
from visavis.pretrain.vocabulary import build_tokenizer

SIZE = 32


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        (448, 448, (1, 1)),
        (896, 896, (2, 2)),
        (300, 200, (1, 1)),  # the proportions say 2 x 1, but no pixel is lost in 1 x 1
        (1000, 450, (2, 1)),  # 3 x 1 keeps most pixels, 2 x 1 is closer in its proportions
        (450, 1000, (1, 2)),
        (4000, 500, (4, 1)),
    ],
)
def test_the_smaller_grid_of_two_rules(width: int, height: int, grid: tuple[int, int]) -> None:
    assert grid_of(width, height, 448, most=4) == grid


def test_parts_go_row_by_row_with_their_centres() -> None:
    picture = np.zeros((2 * SIZE, 2 * SIZE, 3), np.uint8)
    picture[:SIZE, SIZE:], picture[SIZE:, :SIZE], picture[SIZE:, SIZE:] = 80, 160, 240
    parts = parts_of(picture, SIZE, most=4)
    assert [int(part[SIZE // 2, SIZE // 2, 0]) for part, _ in parts] == [0, 80, 160, 240]
    assert all(part.shape == (SIZE, SIZE, 3) for part, _ in parts)
    assert [centre for _, centre in parts] == [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]
    columns = parts_of(picture[:SIZE], SIZE, most=4)
    assert [centre for _, centre in columns] == [(0.25, 0.5), (0.75, 0.5)]


def test_a_chat_reads_the_parts_before_the_whole() -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer([RESPONSE, "who is on the left Olivia"], 4)
    shape = MllmConfig(token_dim=8, image_tokens=4, connector_heads=2, views=5, view_positions=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    llm = LlamaForCausalLM(config)
    extend_vocabulary(tokenizer, llm)
    encoder = ImageEncoder(
        ImageEncoderConfig(
            image_size=SIZE,
            patch_size=8,
            width=16,
            layers=1,
            heads=2,
            mlp_width=16,
            position_grid=4,
            pool_grid=4,
            output_dim=8,
            pool_heads=2,
        )
    ).eval()
    session = ChatSession(ChatModel(Mllm(llm, shape), tokenizer, encoder))
    wide = np.random.default_rng(0).integers(0, 255, (SIZE, 2 * SIZE, 3), np.uint8)
    square = wide[:, :SIZE]
    # No word opens an image, for there is nothing here to paint one.
    with torch.no_grad():
        llm.lm_head.weight.zero_()
    session.say("who is on the left", (square, wide))
    session.say("Olivia", (square,))
    turns, seen = turns_of(session.conversation.messages(), 5, SIZE)
    first, second, _ = turns[0]["content"]
    assert (first["image"], first["views"]) == (1, [[0, 0.5, 0.5]])
    assert (second["image"], second["views"]) == (4, [[2, 0.25, 0.5], [3, 0.75, 0.5]])
    for picture, expected in zip(seen[2:5], [wide[:, :SIZE], wide[:, SIZE:], wide], strict=True):
        np.testing.assert_array_equal(picture, expected)
    assert turns[2]["content"][0]["views"] == [[5, 0.5, 0.5]]
