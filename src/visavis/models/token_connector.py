"""Image tokens as a denoiser reads them: a normed condition for cross-attention, and maps of the latent's shape."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from visavis.models.image_encoder import POOL_STRIDE


@dataclass(frozen=True)
class DetokenizerConfig:
    """Shape of the condition and how the denoiser was taught.

    Attributes:
        token_dim: Channels of an image token.
        image_tokens: Tokens of a picture: 64 (pooled) or 256.
        condition_dim: Channels of the cross-attention condition.
        latent_channels: Channels of the latent.
        latent_size: Side of the latent.
        map_dim: Channels of the query grid that the maps are made from.
        pooled_dim: Channels of the pooled condition of an SDXL-style UNet; 0 for none.
        objective: `flow` (the clean latent, on straight paths) or `epsilon` (the noise, DDPM).
        shift: Moves the noise levels of flow matching towards noise; 1 leaves them.
        condition_dropout: Share of pictures that are learned without their tokens, for guidance.
        condition_image: Whether the latent of a second picture stands beside the noise (SEED-X stage 2).
        guidance: Scale of classifier-free guidance at sampling; 1 is off.
        solver: `euler`, `dpm` (DPM-Solver++ of second order) or `stochastic` (flow matching: each step begins with
            fresh noise, which forgets the errors of the steps before).
    """

    token_dim: int = 4096
    image_tokens: int = 64
    condition_dim: int = 4096
    latent_channels: int = 32
    latent_size: int = 16
    map_dim: int = 64
    pooled_dim: int = 0
    objective: str = "flow"
    shift: float = 1.0
    condition_dropout: float = 0.0
    condition_image: bool = False
    guidance: float = 1.0
    solver: str = "euler"

    @property
    def input_channels(self) -> int:
        """Channels of the denoiser's input: noise, aligned map and perhaps the latent of a condition image."""
        return (3 if self.condition_image else 2) * self.latent_channels


class Condition(NamedTuple):
    """What the denoiser is told: `[B, N, c]`, maps `[B, C, h, w]` and perhaps a pooled `[B, p]`."""

    tokens: Tensor
    aligned: Tensor
    guess: Tensor | None
    pooled: Tensor | None


class TokenConnector(ModelMixin, ConfigMixin):
    """Turns image tokens into a cross-attention condition and two maps of the latent's shape.

    Tokens are laid out on the encoder's 16 × 16 query grid (a pooled token covers a horizontal run of four), folded to
    the latent's grid and convolved: one map joins the noisy latent at the denoiser's input, the other (flow matching
    only) is a linear first guess of the latent. The same connector serves every denoiser. The arguments are those of
    `DetokenizerConfig`.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        token_dim: int = 4096,
        image_tokens: int = 64,
        condition_dim: int = 4096,
        latent_channels: int = 32,
        latent_size: int = 16,
        map_dim: int = 64,
        pooled_dim: int = 0,
        objective: str = "flow",
        shift: float = 1.0,
        condition_dropout: float = 0.0,
        condition_image: bool = False,
        guidance: float = 1.0,
        solver: str = "euler",
    ) -> None:
        super().__init__()
        self.queries = math.isqrt(image_tokens)
        self.run = 1
        if self.queries % POOL_STRIDE**2:
            self.run = POOL_STRIDE
            self.queries = math.isqrt(image_tokens * POOL_STRIDE)
        self.unpool = nn.Linear(token_dim, self.run * map_dim)
        fold = latent_size / self.queries
        self.fold = nn.PixelUnshuffle(round(1 / fold)) if fold <= 1 else nn.PixelShuffle(round(fold))
        maps = 2 if objective == "flow" else 1
        self.maps = nn.Conv2d(round(map_dim / fold**2), maps * latent_channels, 3, padding=1)
        self.condition = nn.Sequential(
            nn.Linear(token_dim, condition_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(condition_dim, condition_dim),
            nn.RMSNorm(condition_dim, eps=1e-5),
        )
        self.position = nn.Parameter(torch.randn(image_tokens, condition_dim) * 0.02)
        self.pooled = nn.Linear(token_dim, pooled_dim) if pooled_dim else None
        self.nothing = nn.Parameter(torch.zeros(image_tokens, token_dim)) if condition_dropout else None

    @classmethod
    def of(cls, config: DetokenizerConfig) -> TokenConnector:
        """Builds one with fresh weights."""
        return cls(**asdict(config))

    def forward(self, tokens: Tensor) -> Condition:
        """Maps tokens `[B, N, d]` to what the denoiser is told."""
        grid = self.unpool(tokens).view(len(tokens), self.queries, self.queries, -1).permute(0, 3, 1, 2)
        aligned, *guess = self.maps(self.fold(grid)).split(self.config.latent_channels, dim=1)
        return Condition(
            self.condition(tokens) + self.position,
            aligned,
            guess[0] if guess else None,
            self.pooled(tokens.mean(dim=1)) if self.pooled is not None else None,
        )

    def without(self, tokens: Tensor, dropped: Tensor) -> Tensor:
        """Puts the learned tokens of no picture in place of some `[B, N, d]`, where `dropped` `[B]` says so."""
        if self.nothing is None:
            raise ValueError("this connector was built without condition dropout")
        return torch.where(dropped.view(-1, 1, 1), self.nothing.to(tokens.dtype), tokens)
