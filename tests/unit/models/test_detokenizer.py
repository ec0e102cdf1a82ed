"""The detokenizer starts as the text-to-image model that it is made from; samples do not depend on the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel

from visavis.models.denoisers import NO_EXTRA_CONDITION, widen_input
from visavis.models.detokenizer import Detokenizer
from visavis.models.image_encoder import pool_tokens
from visavis.training.baselines import unet_like, untrained_like


def _dit() -> PixArtTransformer2DModel:
    torch.manual_seed(0)
    return PixArtTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=4, num_layers=1,
        cross_attention_dim=64, sample_size=8, patch_size=1, caption_channels=12, use_additional_conditions=False,
    ).eval()  # fmt: skip


@torch.no_grad()
def test_widening_the_input_keeps_the_output() -> None:
    model, x = _dit(), torch.randn(2, 4, 8, 8)
    words, time = torch.randn(2, 5, 12), torch.tensor([10.0, 900.0])

    def run(picture: torch.Tensor) -> torch.Tensor:
        extra = NO_EXTRA_CONDITION
        return model(picture, encoder_hidden_states=words, timestep=time, added_cond_kwargs=extra).sample

    before = run(x)
    widen_input(model, 8)
    torch.testing.assert_close(run(torch.cat([x, torch.randn_like(x)], dim=1)), before)


@pytest.mark.parametrize("kind", ["dit", "unet"])
@torch.no_grad()
def test_samples_are_reproducible_and_do_not_depend_on_the_batch(kind: str, tmp_path: Path) -> None:
    denoiser = _dit() if kind == "dit" else unet_like(_dit())
    model = Detokenizer.from_text_to_image(denoiser, FlowMatchEulerDiscreteScheduler(), token_dim=6).eval()
    tokens = torch.randn(3, 64, 6)
    together = model.sample(tokens, steps=2, seed=5)
    torch.testing.assert_close(
        model.sample(tokens[1:2], steps=2, seed=5)[0], together[1], atol=1e-4, rtol=1e-4
    )
    model.save_pretrained(tmp_path)
    again = Detokenizer.from_pretrained(tmp_path).eval().sample(tokens, steps=2, seed=5)
    torch.testing.assert_close(again, together)


def test_an_untrained_dit_has_the_shape_of_the_trained_one_and_weights_of_its_seed() -> None:
    trained = _dit()

    def fresh(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return dict(untrained_like(trained).state_dict())

    first, shapes = fresh(1), {name: weight.shape for name, weight in trained.state_dict().items()}
    assert {name: weight.shape for name, weight in first.items()} == shapes
    torch.testing.assert_close(first, fresh(1))
    name = "transformer_blocks.0.attn1.to_q.weight"
    for other in (trained.state_dict(), fresh(2)):
        assert not torch.equal(first[name], other[name])


def test_pooling_averages_runs_of_four() -> None:
    tokens = torch.arange(256.0).view(1, 256, 1)
    assert pool_tokens(tokens)[0, :2, 0].tolist() == [1.5, 5.5]
