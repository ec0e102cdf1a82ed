"""The detokenizer: a text-to-image transformer that learns to paint the picture behind 64 image tokens.

Source: the paper, section 3.1 (vanilla DiT, text-to-image initialisation, reconstruction); SEED-X stage 2 (a condition
map beside the noisy latent, its new input weights starting at zero).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from visavis.models.checkpoint import load_config, load_weights, save_module
from visavis.models.image_encoder import POOL_STRIDE

Denoiser: TypeAlias = PixArtTransformer2DModel | UNet2DConditionModel
DENOISER_FOLDER = "denoiser"
TRAINING_STEPS = 1000
NO_EXTRA_CONDITION = {"resolution": None, "aspect_ratio": None}
MIN_SIGMA = 0.05
"""The least noise level that is drawn; it also bounds the weight of the loss."""


@dataclass(frozen=True)
class DetokenizerConfig:
    """Shape of the condition.

    Attributes:
        denoiser: `dit` (PixArt) or `unet`.
        token_dim: Channels of an image token.
        image_tokens: Tokens of a picture: 64 (pooled) or 256.
        condition_dim: Channels of the cross-attention condition.
        latent_channels: Channels of the latent.
        latent_size: Side of the latent.
        map_dim: Channels of the query grid that the maps are made from.
    """

    denoiser: str = "dit"
    token_dim: int = 4096
    image_tokens: int = 64
    condition_dim: int = 4096
    latent_channels: int = 32
    latent_size: int = 16
    map_dim: int = 64


def draw_sigma(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws noise levels `[count]` in [0.05, 1]: logit-normal, mean 0.5, one in four at pure noise.

    Few-step sampling starts from pure noise, so that level gets a share of its own.
    """
    sigma = torch.sigmoid(torch.randn(count, generator=generator) + 0.5).clamp(MIN_SIGMA, 1.0)
    return torch.where(torch.rand(count, generator=generator) < 0.25, torch.ones(()), sigma)


class TokenConnector(nn.Module):
    """Turns image tokens into a cross-attention condition and two maps of the latent's shape.

    Tokens are laid out on the encoder's 16 × 16 query grid (a pooled token covers a horizontal run of four), folded to
    the latent's grid and convolved: one map joins the noisy latent at the denoiser's input, the other is a linear
    first guess of the latent. The same connector serves the DiT and the UNet.
    """

    def __init__(self, config: DetokenizerConfig) -> None:
        super().__init__()
        self.queries = math.isqrt(config.image_tokens)
        self.run = 1
        if self.queries % POOL_STRIDE**2:
            self.run = POOL_STRIDE
            self.queries = math.isqrt(config.image_tokens * POOL_STRIDE)
        self.latent_channels = config.latent_channels
        self.unpool = nn.Linear(config.token_dim, self.run * config.map_dim)
        fold = config.latent_size / self.queries
        self.fold = nn.PixelUnshuffle(round(1 / fold)) if fold <= 1 else nn.PixelShuffle(round(fold))
        self.maps = nn.Conv2d(round(config.map_dim / fold**2), 2 * config.latent_channels, 3, padding=1)
        self.condition = nn.Sequential(
            nn.Linear(config.token_dim, config.condition_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.condition_dim, config.condition_dim),
            nn.RMSNorm(config.condition_dim, eps=1e-5),
        )
        self.position = nn.Parameter(torch.randn(config.image_tokens, config.condition_dim) * 0.02)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps tokens `[B, N, d]` to (condition `[B, N, c]`, aligned map and first guess, both `[B, C, h, w]`)."""
        grid = self.unpool(tokens).view(len(tokens), self.queries, self.queries, -1).permute(0, 3, 1, 2)
        aligned, guess = self.maps(self.fold(grid)).split(self.latent_channels, dim=1)
        return self.condition(tokens) + self.position, aligned, guess


class Detokenizer(nn.Module):
    """Paints latents from image tokens by flow matching.

    The network predicts the clean latent as a correction of the connector's first guess; the velocity that the
    scheduler wants follows from it: `v = (x_sigma - x_0) / sigma`.
    """

    def __init__(
        self, denoiser: Denoiser, scheduler: FlowMatchEulerDiscreteScheduler, config: DetokenizerConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.denoiser = denoiser
        self.scheduler = scheduler
        self.connector = TokenConnector(config)

    @classmethod
    def from_text_to_image(
        cls,
        denoiser: Denoiser,
        scheduler: FlowMatchEulerDiscreteScheduler,
        token_dim: int,
        image_tokens: int = 64,
    ) -> Detokenizer:
        """Builds a detokenizer on a text-to-image model: its input is widened by the aligned map, at zero."""
        is_dit = isinstance(denoiser, PixArtTransformer2DModel)
        condition = denoiser.config.caption_channels if is_dit else denoiser.config.cross_attention_dim
        config = DetokenizerConfig(
            denoiser="dit" if is_dit else "unet",
            token_dim=token_dim,
            image_tokens=image_tokens,
            condition_dim=condition,
            latent_channels=denoiser.config.in_channels,
            latent_size=denoiser.config.sample_size,
        )
        _widen_input(denoiser, 2 * config.latent_channels)
        return cls(denoiser, scheduler, config)

    def predict(self, noisy: Tensor, sigma: Tensor, tokens: Tensor) -> Tensor:
        """Predicts the clean latent.

        Args:
            noisy: `[B, C, h, w]`.
            sigma: `[B]` in (0, 1].
            tokens: `[B, N, token_dim]`.
        """
        condition, aligned, guess = self.connector(tokens)
        return guess + self._denoise(torch.cat([noisy, aligned], dim=1), sigma, condition)

    def _denoise(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        timestep = sigma * TRAINING_STEPS
        if self.config.denoiser == "dit":
            output = self.denoiser(
                x, encoder_hidden_states=condition, timestep=timestep, added_cond_kwargs=NO_EXTRA_CONDITION
            ).sample
        else:
            output = self.denoiser(x, timestep, encoder_hidden_states=condition).sample
        clean: Tensor = output[:, : self.config.latent_channels]
        return clean

    def forward(self, tokens: Tensor, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Flow-matching loss of each picture `[B]` on its clean latent, weight 1 / (sigma + 0.05).

        Args:
            tokens: `[B, N, token_dim]`.
            latents: `[B, C, h, w]`.
            noise: `[B, C, h, w]`, standard normal.
            sigma: `[B]`, from `draw_sigma`.
        """
        wide = sigma.view(-1, 1, 1, 1)
        prediction = self.predict((1 - wide) * latents + wide * noise, sigma, tokens)
        error = (prediction.float() - latents).square().mean(dim=(1, 2, 3))
        return error / (sigma + MIN_SIGMA)

    @torch.no_grad()
    def sample(self, tokens: Tensor, steps: int = 4, seed: int = 0) -> Tensor:
        """Paints latents `[B, C, h, w]` for tokens `[B, N, d]` by Euler steps; same seed, same picture.

        The noise of an item does not depend on its place in the batch.
        """
        side = self.config.latent_size
        shape = (self.config.latent_channels, side, side)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(shape, generator=generator).to(tokens)
        x = noise.expand(len(tokens), *shape)
        self.scheduler.set_timesteps(steps, device=tokens.device)
        sigmas = self.scheduler.sigmas
        for index, timestep in enumerate(self.scheduler.timesteps):
            sigma = sigmas[index].to(tokens).expand(len(tokens))
            clean = self.predict(x, sigma, tokens)
            x = self.scheduler.step((x - clean) / sigma[:1, None, None, None], timestep, x).prev_sample
        return x

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Writes the denoiser and the scheduler in diffusers' layout, the connector beside them."""
        folder.mkdir(parents=True, exist_ok=True)
        original = next(self.denoiser.parameters()).dtype
        self.denoiser.to(dtype or original).save_pretrained(folder / DENOISER_FOLDER)
        self.denoiser.to(original)
        self.scheduler.save_pretrained(folder / "scheduler")
        save_module(self.connector, self.config, folder, dtype)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Detokenizer:
        """Reads a folder written by `save_pretrained`, in float32."""
        config = DetokenizerConfig(**load_config(folder))
        kind = PixArtTransformer2DModel if config.denoiser == "dit" else UNet2DConditionModel
        denoiser = kind.from_pretrained(
            folder / DENOISER_FOLDER, torch_dtype=torch.float32, low_cpu_mem_usage=False
        )
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        model = cls(denoiser, scheduler, config)
        load_weights(model.connector, folder)
        return model


def _widen_input(denoiser: Denoiser, channels: int) -> None:
    """Gives the first convolution more input channels; the new weights are zero, so the output stays as it was."""
    owner, name = (
        (denoiser.pos_embed, "proj")
        if isinstance(denoiser, PixArtTransformer2DModel)
        else (denoiser, "conv_in")
    )
    old: nn.Conv2d = getattr(owner, name)
    geometry: dict[str, Any] = {"kernel_size": old.kernel_size, "stride": old.stride, "padding": old.padding}
    new = nn.Conv2d(channels, old.out_channels, bias=old.bias is not None, **geometry)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    setattr(owner, name, new)
    denoiser.register_to_config(in_channels=channels)
