"""Tuning of the detokenizer: how a step is dealt out, what it is given, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel

from visavis.chat.template import assistant, user
from visavis.errors import VisavisError
from visavis.models.detokenizer import Detokenizer
from visavis.training.config import EngineConfig, OptimConfig
from visavis.training.detokenizer import balanced, kinds_of_answers, reconstruct, sources_of


def test_without_pictures_it_says_where_to_put_some(tmp_path: Path) -> None:
    nothing = np.zeros((0, 64, 4), np.float16), np.zeros((0, 4, 8, 8), np.float16)
    with pytest.raises(VisavisError, match="no picture to tune") as caught:
        reconstruct(torch.nn.Linear(2, 2), *nothing, OptimConfig(steps=2), tmp_path)
    assert "pictures/" in caught.value.fix
    assert reconstruct(torch.nn.Linear(2, 2), *nothing, OptimConfig(steps=0), tmp_path) == {}


def _painter(**options: Any) -> Detokenizer:
    torch.manual_seed(0)
    denoiser = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, num_layers=1,
        cross_attention_dim=32, sample_size=8, patch_size=1, caption_channels=12, use_additional_conditions=False,
    )  # fmt: skip
    return Detokenizer.from_text_to_image(denoiser, FlowMatchEulerDiscreteScheduler(), 6, **options)


def _arrays(count: int, tokens: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = ((count, tokens, 6), (count, 4, 8, 8))
    return tuple(rng.normal(size=shape).astype(np.float16) for shape in shapes)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "options",
    [{}, {"objective": "epsilon"}, {"condition_dropout": 0.5}, {"condition_image": True}, {"shift": 3.0}],
)
def test_parts_of_a_step_teach_what_the_step_teaches(tmp_path: Path, options: dict[str, Any]) -> None:
    config, (tokens, latents) = OptimConfig(steps=3, batch_size=6, warmup=0, lr=1e-3), _arrays(9)
    whole, parts = _painter(**options), _painter(**options)
    for model, accumulate in ((whole, 1), (parts, 3)):
        engine = EngineConfig(accumulate=accumulate)
        work = tmp_path / str(accumulate)
        reconstruct(model, tokens, latents, config, work, engine=engine, sources=latents[::-1])
    for first, second in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


def test_a_picture_paints_from_all_tokens_only_if_all_are_stored(tmp_path: Path) -> None:
    config = OptimConfig(steps=1, batch_size=2, warmup=0)
    reconstruct(_painter(image_tokens=256), *_arrays(4, 256), config, tmp_path / "all")
    with pytest.raises(VisavisError, match=r"image_tokens is 256, but 64 tokens") as caught:
        reconstruct(_painter(image_tokens=256), *_arrays(4), config, tmp_path / "pooled")
    assert "encode.pooled=false" in caught.value.fix


def test_the_condition_image_is_the_first_of_the_chat() -> None:
    pair = {"turns": [user(0, "a"), assistant("b", 1)], "rows": [7, 8]}
    rounds = {
        "turns": [user("a"), assistant("b", 0), user("c"), assistant("d", 1), user("e"), assistant("f", 2)],
        "rows": [1, 2, 3],
    }
    copied = {"turns": [user(0, "a"), assistant("b", 1)], "rows": [5, 5]}
    assert sources_of([pair, rounds, copied]) == {8: 7, 2: 1, 3: 1}


def test_rare_kinds_of_answers_are_drawn_as_often_as_others() -> None:
    chat = [user("two friends"), assistant("yes", 0), user("Olivia"), assistant("yes", 1, 2)]
    alone = [user(0, "a person"), assistant("yes", 1)]
    kinds = kinds_of_answers([{"set": "rounds", "turns": chat}, *[{"set": "pair", "turns": alone}] * 4])
    assert kinds == ["rounds, first", "rounds, later", "rounds, later", *["pair, first"] * 4]
    drawn = [kinds[place] for place in balanced(kinds)]
    assert [drawn.count(kind) for kind in dict.fromkeys(kinds)] == [4, 4, 4]
    assert set(balanced(kinds).tolist()) == set(range(7))
    assert balanced([]).tolist() == []
