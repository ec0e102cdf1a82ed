"""The frozen image encoder: the ViT of Qwen-VL with its attention pool, and the paper's pooling to 64 tokens.

Source: SEED-X `src/models/tokenizer/qwen_visual.py` (shapes and names); the paper, section 3.1 (256 → 64).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from visavis.models.checkpoint import load_config, load_weights, save_module
from visavis.models.resampler import Resampler, resize_positions

POOL_STRIDE = 4


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Shape of the encoder; the defaults are Qwen-VL's ViT-bigG.

    Attributes:
        image_size: Side of the square input, px.
        patch_size: Side of a patch, px.
        width: Channels of the ViT.
        layers: Transformer blocks.
        heads: Attention heads of the ViT.
        mlp_width: Hidden channels of the MLP.
        position_grid: Side of the learned position table (resized to the patch grid).
        pool_grid: Side of the query grid: `pool_grid²` output tokens (16 → 256).
        output_dim: Channels of an output token.
        pool_heads: Heads of the attention pool.
        mean: Per-channel mean taken off pictures in [0, 1].
        std: Per-channel standard deviation they are divided by.
    """

    image_size: int = 448
    patch_size: int = 14
    width: int = 1664
    layers: int = 48
    heads: int = 16
    mlp_width: int = 8192
    position_grid: int = 16
    pool_grid: int = 16
    output_dim: int = 4096
    pool_heads: int = 32
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


class FusedAttention(nn.Module):
    """Self-attention whose `in_proj` holds q, k, v *per head, interleaved* (Megatron's order), not as blocks."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, L, width]` to `[B, L, width]`."""
        batch, length, width = x.shape
        fused = self.in_proj(x).view(batch, length, self.heads, 3 * width // self.heads).transpose(1, 2)
        q, k, v = fused.chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class _Block(nn.Module):
    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = FusedAttention(config.width, config.heads)
        self.ln_2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.mlp_width), nn.GELU(), nn.Linear(config.mlp_width, config.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class ImageEncoder(nn.Module):
    """Qwen-VL's ViT: patches → blocks → attention pool → LayerNorm → projection."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, config.width, config.patch_size, config.patch_size, bias=False)
        self.positional_embedding = nn.Parameter(
            torch.randn(config.position_grid**2, config.width) * config.width**-0.5
        )
        self.ln_pre = nn.LayerNorm(config.width, eps=1e-6)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.attn_pool = Resampler(
            config.pool_grid, config.output_dim, config.pool_heads, input_dim=config.width, eps=1e-6
        )
        self.ln_post = nn.LayerNorm(config.output_dim, eps=1e-6)
        self.proj = nn.Parameter(torch.randn(config.output_dim, config.output_dim) * config.output_dim**-0.5)
        self.register_buffer("_mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        self._mean: Tensor
        self._std: Tensor

    def forward(self, pictures: Tensor) -> Tensor:
        """Encodes pictures.

        Args:
            pictures: `[B, 3, image_size, image_size]` in [-1, 1].

        Returns:
            Tokens `[B, pool_grid², output_dim]`, not normalised.
        """
        x = ((pictures + 1) / 2 - self._mean) / self._std
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = self.ln_pre(x + resize_positions(self.positional_embedding, x.shape[1]))
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.ln_post(self.attn_pool(x)) @ self.proj
        return tokens

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Writes `config.json` and `model.safetensors`."""
        save_module(self, self.config, folder, dtype)

    @classmethod
    def from_pretrained(cls, folder: Path) -> ImageEncoder:
        """Reads a folder written by `save_pretrained`; frozen, in evaluation mode."""
        values = load_config(folder)
        values["mean"], values["std"] = tuple(values["mean"]), tuple(values["std"])
        encoder = cls(ImageEncoderConfig(**values))
        load_weights(encoder, folder)
        return encoder.eval().requires_grad_(False)


def pool_tokens(tokens: Tensor) -> Tensor:
    """Averages each run of four tokens: `[B, 4n, d]` → `[B, n, d]`.

    This is SEED-X's `vit_down`: a one-dimensional pool along the query order, so that a pooled token covers four
    horizontal neighbours of the query grid.
    """
    batch, length, dim = tokens.shape
    return tokens.view(batch, length // POOL_STRIDE, POOL_STRIDE, dim).mean(dim=2)
