"""A chat model of random weights that paints without a detokenizer, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from visavis.chat.model import ChatModel
from visavis.chat.reader import Reader
from visavis.chat.template import CLOSE_UP, RESPONSE
from visavis.models.image_encoder import ImageEncoder, ImageEncoderConfig
from visavis.models.mllm import Mllm, MllmConfig
from visavis.pretrain.vocabulary import build_tokenizer

IMAGE_TOKENS, DIM, SIZE = 16, 8, 32
SAYING = "two friends, Julian and Olivia"


class Painting(ChatModel):
    """Paints without a detokenizer: a picture is a function of its tokens and its seed."""

    def paint(
        self,
        tokens: NDArray[np.floating[Any]],
        seed: int | Sequence[int] = 0,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        watch: Callable[[int, Callable[[], list[NDArray[np.uint8]]]], bool] | None = None,
    ) -> list[NDArray[np.uint8]]:
        seeds = [seed] * len(tokens) if isinstance(seed, int) else seed
        pictures = []
        for item, number in zip(tokens, seeds, strict=True):
            rounded = np.round(item[:, :3], 2) * 100 + 7 * number
            pictures.append(np.resize(rounded.astype(np.int64) % 256, (SIZE, SIZE, 3)).astype(np.uint8))
        for step in range(1, (steps or 3) + 1):
            if watch is not None and not watch(step, lambda: pictures):
                break
        return pictures


def chat_model(room: int = 2048, token_shift: int = 3) -> Painting:
    """Returns a model of random weights that reads up to `room` tokens."""
    torch.manual_seed(1)
    tokenizer = build_tokenizer([RESPONSE, CLOSE_UP, SAYING, "left right red hair"], IMAGE_TOKENS)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=room,
    )
    shape = MllmConfig(
        token_dim=DIM,
        image_tokens=IMAGE_TOKENS,
        input_connector="pool",
        output_connector="linear",
        token_shift=token_shift,
    )
    mllm = Mllm(LlamaForCausalLM(config), shape)
    for parameter in mllm.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    encoder = ImageEncoder(
        ImageEncoderConfig(
            image_size=SIZE,
            patch_size=4,
            width=16,
            layers=1,
            heads=2,
            mlp_width=16,
            position_grid=8,
            pool_grid=8,
            output_dim=DIM,
            pool_heads=2,
        )
    ).eval()
    return Painting(mllm, tokenizer, encoder, fingerprint="tiny")


def answer_with_a_picture(model: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a model always say "generated an image" and paint one; what it paints depends on what it read."""
    script = [*model.template.ids("generated an image"), model.template.image_open, model.template.eos]
    plain = Reader.scores

    def scores(reader: Reader) -> torch.Tensor:
        given = plain(reader)
        place = getattr(reader, "said", 0)
        reader.said = place + 1  # type: ignore[attr-defined]
        given[:, script[min(place, len(script) - 1)]] = 1e4
        return given

    monkeypatch.setattr(Reader, "scores", scores)
