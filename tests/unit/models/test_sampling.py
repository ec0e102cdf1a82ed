"""Sampling by every kind of denoiser, objective and solver: the quick way gives what the plain way gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    PixArtTransformer2DModel,
    SanaTransformer2DModel,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from visavis.errors import VisavisError
from visavis.models import detokenizer
from visavis.models.denoisers import Denoiser, load_denoiser
from visavis.models.detokenizer import MIN_SIGMA, Detokenizer, draw_sigma
from visavis.training.baselines import unet_like

TOKEN_DIM, WORDS = 6, 12


def pixart(out_channels: int = 4) -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=out_channels, num_layers=2,
        cross_attention_dim=32, sample_size=8, patch_size=1, caption_channels=WORDS, use_additional_conditions=False,
    )  # fmt: skip


def sana() -> SanaTransformer2DModel:
    return SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=WORDS,
        sample_size=8, patch_size=1,
    )  # fmt: skip


def sdxl() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), block_out_channels=(16, 32), layers_per_block=1,
        attention_head_dim=8, cross_attention_dim=WORDS, norm_num_groups=8, addition_embed_type="text_time",
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=6 * 4 + 10,
    )  # fmt: skip


BUILDERS = {
    "pixart": pixart,
    "pixart with learned variance": lambda: pixart(8),
    "sana": sana,
    "unet": lambda: unet_like(pixart()),
    "sdxl": sdxl,
}


def built(kind: str, **options: Any) -> Detokenizer:
    torch.manual_seed(1)
    denoiser: Denoiser = BUILDERS[kind]()
    for weight in denoiser.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.1)
    model = Detokenizer.from_text_to_image(
        denoiser, FlowMatchEulerDiscreteScheduler(), TOKEN_DIM, **options
    ).eval()
    if model.connector.nothing is not None:
        torch.nn.init.normal_(model.connector.nothing)
    return model


@torch.no_grad()
def plainly(
    model: Detokenizer, tokens: Tensor, steps: int, guidance: float, sources: Tensor | None
) -> Tensor:
    """The loop of a diffusers pipeline: attention as the library has it, two calls for guidance, nothing kept."""
    for module in model.denoiser.modules():
        if getattr(module, "is_cross_attention", False):
            module.set_processor(AttnProcessor2_0())
    config = model.config
    shape = (config.latent_channels, config.latent_size, config.latent_size)
    generators = [torch.Generator().manual_seed(3) for _ in tokens]
    x = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(tokens)
    scheduler = model.solver(steps)
    for number, time in enumerate(scheduler.timesteps):
        level = time.to(tokens).expand(len(tokens))
        said = model.predict(x, level, tokens, sources)
        if guidance != 1:
            none = model.connector.without(tokens, torch.ones(len(tokens), dtype=torch.bool))
            untold = model.predict(x, level, none, sources)
            said = untold + guidance * (said - untold)
        if config.objective == "flow":
            said = (x - said) / (time / 1000)
        if config.solver == "stochastic":
            fresh = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
            sigma = scheduler.sigmas[number + 1]
            x = (1 - sigma) * (x - said * time / 1000) + sigma * fresh
        else:
            x = scheduler.step(said, time, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "stochastic"},
        {"condition_dropout": 0.1, "guidance": 2.0},
        {"objective": "epsilon"},
        {"condition_image": True},
    ],
    ids=["flow", "stochastic", "guided", "epsilon", "condition image"],
)
@torch.no_grad()
def test_kept_conditions_and_joint_guidance_change_nothing(kind: str, options: dict[str, Any]) -> None:
    # In float64, for untrained networks enlarge what float32 rounds.
    model, tokens = built(kind, **options).double(), torch.randn(3, 64, TOKEN_DIM).double()
    sources = torch.randn(3, 4, 8, 8).double() if "condition_image" in options else None
    quick = model.sample(tokens, 4, seed=3, sources=sources)
    plain = plainly(model, tokens, 4, options.get("guidance", 1.0), sources)
    torch.testing.assert_close(quick, plain, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_fresh_noise_depends_on_the_seed_of_its_picture_alone() -> None:
    model, tokens = built("pixart", solver="stochastic"), torch.randn(1, 64, TOKEN_DIM).expand(3, -1, -1)
    painted = model.sample(tokens, 4, seed=[3, 5, 3])
    torch.testing.assert_close(painted[0], painted[2])
    torch.testing.assert_close(painted[1:2], model.sample(tokens[:1], 4, seed=5), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(painted[0], painted[1], atol=0.01)


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("objective", ["flow", "epsilon"])
def test_a_few_steps_lower_the_loss(kind: str, objective: str) -> None:
    model = built(kind, objective=objective, condition_dropout=0.2).train()
    generator = torch.Generator().manual_seed(0)
    tokens, latents = (
        torch.randn(8, 64, TOKEN_DIM, generator=generator),
        torch.randn(8, 4, 8, 8, generator=generator),
    )
    noise, dropped = torch.randn(8, 4, 8, 8, generator=generator), torch.arange(8) == 0
    level = draw_sigma(8, generator) if objective == "flow" else torch.linspace(0.1, 0.9, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = model(tokens, latents, noise, level, dropped).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_guidance_needs_condition_dropout() -> None:
    with pytest.raises(VisavisError, match="tuned without condition dropout"):
        built("pixart").sample(torch.randn(1, 64, TOKEN_DIM), 1, guidance=2.0)


@torch.no_grad()
def test_the_condition_image_starts_without_a_say() -> None:
    model, tokens = built("unet", condition_image=True), torch.randn(2, 64, TOKEN_DIM)
    without = model.sample(tokens, 2, seed=3)
    assert torch.equal(model.sample(tokens, 2, seed=3, sources=torch.randn(2, 4, 8, 8)), without)


@torch.no_grad()
def test_all_tokens_can_be_read() -> None:
    assert built("pixart", image_tokens=256).sample(torch.randn(2, 256, TOKEN_DIM), 2).shape == (2, 4, 8, 8)


@pytest.mark.parametrize("solver", ["euler", "stochastic"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_ends_at_the_least_level_that_was_trained(solver: str, shift: float) -> None:
    model = built("pixart", solver=solver, shift=shift)
    for steps in (2, 5, 50):
        sigmas = model.solver(steps).sigmas
        assert len(sigmas) == steps + 1
        assert float(sigmas[0]) == pytest.approx(1)
        assert float(sigmas[-2]) == pytest.approx(MIN_SIGMA)


@torch.no_grad()
def test_both_solvers_follow_one_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def smooth(self: Detokenizer, noisy: Tensor, *_: Any) -> Tensor:
        return torch.tanh(noisy)

    monkeypatch.setattr(Detokenizer, "_predict", smooth)
    monkeypatch.setattr(detokenizer, "MIN_SIGMA", 1 / 500)  # where dpm ends
    tokens = torch.randn(2, 64, TOKEN_DIM)
    euler, dpm = (built("pixart", solver=name) for name in ("euler", "dpm"))
    first, second = (model.sample(tokens, 500, seed=3) for model in (euler, dpm))
    assert float((first - second).abs().mean()) < 0.02


def test_what_is_kept_of_the_text_to_image_model_is_told() -> None:
    start = built("pixart").initialisation
    assert start is not None
    assert start.widened == ("pos_embed.proj.weight",)
    assert "caption_projection.linear_1.weight" in start.kept
    assert all(name.startswith("connector.") for name in start.fresh)
    assert 0 < start.kept_share < 1


def test_a_network_of_an_unknown_class_is_refused(tmp_path: Path) -> None:
    pixart().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("PixArtTransformer2DModel", "FluxTransformer2DModel"))
    with pytest.raises(VisavisError, match="FluxTransformer2DModel"):
        load_denoiser(tmp_path)


@torch.no_grad()
def test_a_fresh_process_reads_it_as_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    model = built("pixart")
    model.save_pretrained(tmp_path, autoencoder=vae)
    code = (
        "import sys, torch, visavis.models.detokenizer_pipeline\n"
        "from diffusers import DiffusionPipeline\n"
        "pipe = DiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "pictures = pipe(tokens=torch.ones(2, 64, 6), num_inference_steps=2, seed=3).images\n"
        "latents = pipe(tokens=torch.ones(2, 64, 6), num_inference_steps=2, seed=3, output_type='latent').images\n"
        "print(len(pictures), pictures[0].size, float(latents.sum()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, timeout=200
    )
    count, *size, total = done.stdout.split()[-4:]
    assert (count, size) == ("2", ["(16,", "16)"])
    expected = float(model.sample(torch.ones(2, 64, TOKEN_DIM), 2, seed=3).sum())
    assert float(total) == pytest.approx(expected, rel=1e-4)
