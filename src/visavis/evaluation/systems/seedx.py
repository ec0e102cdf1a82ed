"""SEED-X as it was published: the MLLM that the paper begins with, and SEED-X's own SDXL detokenizer.

Source: SEED-X `src/models/detokenizer` (a perceiver turns 64 image tokens into SDXL's 2048-channel condition).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from visavis.chat.conversation import USER, Message
from visavis.chat.model import ChatModel
from visavis.chat.talker import Request, Talker, Wish
from visavis.evaluation.items import Picture
from visavis.evaluation.systems.sdxl import SdxlPainter
from visavis.models.checkpoint import load_config
from visavis.packs import Pack

_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class PerceiverConfig:
    """Shape of SEED-X's perceiver (`ResamplerXLV2`); the defaults are the published ones.

    Attributes:
        dim: Width.
        depth: Layers.
        dim_head: Width of a head.
        heads: Attention heads.
        num_queries: Tokens that come out.
        embedding_dim: Width of the tokens that go in.
        output1_dim: First part of the output, the width of SDXL's first text encoder.
        output2_dim: Second part, and the pooled output: the width of the second.
        ff_mult: Width of a feed-forward over `dim`.
    """

    dim: int = 1024
    depth: int = 4
    dim_head: int = 64
    heads: int = 16
    num_queries: int = 64
    embedding_dim: int = 4096
    output1_dim: int = 768
    output2_dim: int = 1280
    ff_mult: int = 4


class _LatentAttention(nn.Module):
    """Latents look at the tokens and at each other."""

    def __init__(self, dim: int, dim_head: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        latents = self.norm2(latents)
        seen = torch.cat([self.norm1(tokens), latents], dim=1)
        parts = (self.to_q(latents), *self.to_kv(seen).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return output


class _AttentionPool(nn.Module):
    """One vector of a sequence: its mean asks, as in CLIP's ResNets."""

    def __init__(self, length: int, dim: int, heads: int, output_dim: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(length + 1, dim) / dim**0.5)
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim) for _ in range(3))
        self.c_proj = nn.Linear(dim, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        parts = (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        pooled = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1)
        output: Tensor = self.c_proj(pooled)
        return output


class Perceiver(nn.Module):
    """SEED-X's way from image tokens to SDXL's condition; weights carry the published names."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        dim, inner = config.dim, config.dim * config.ff_mult
        self.latents = nn.Parameter(torch.randn(1, config.num_queries, dim) / dim**0.5)
        self.proj_in = nn.Linear(config.embedding_dim, dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    _LatentAttention(dim, config.dim_head, config.heads),
                    nn.Sequential(
                        nn.LayerNorm(dim),
                        nn.Linear(dim, inner, bias=False),
                        nn.GELU(),
                        nn.Linear(inner, dim, bias=False),
                    ),
                ]
            )
            for _ in range(config.depth)
        )
        self.norm_out = nn.LayerNorm(dim)
        self.unet_proj_1 = nn.Linear(dim, config.output1_dim)
        self.unet_proj_2 = nn.Linear(dim, config.output2_dim)
        self.unet_attnpool = _AttentionPool(config.num_queries, dim, config.heads, config.output2_dim)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Maps `[B, N, embedding_dim]` to `[B, num_queries, output1_dim + output2_dim]` and `[B, output2_dim]`."""
        tokens = self.proj_in(tokens)
        latents = self.latents.expand(len(tokens), -1, -1)
        layers: Any = self.layers
        for attention, feed_forward in layers:
            latents = latents + attention(tokens, latents)
            latents = latents + feed_forward(latents)
        hidden = self.norm_out(latents)
        condition = torch.cat([self.unet_proj_1(hidden), self.unet_proj_2(hidden)], dim=-1)
        return condition, self.unet_attnpool(hidden)


class _Model(ChatModel):
    """A pack's MLLM that paints with SDXL."""

    painter: SdxlPainter
    perceiver: Perceiver

    @torch.no_grad()
    def paint(
        self,
        tokens: np.ndarray[Any, Any],
        seed: int | Sequence[int] = 0,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        watch: Callable[..., bool] | None = None,
    ) -> list[Picture]:
        """Paints pictures from tokens `[n, T, d]`; guidance leads away from a black picture's."""
        seeds = [seed] * len(tokens) if isinstance(seed, int) else list(seed)
        black = self.encoder(torch.zeros(1, 3, self.picture_size, self.picture_size, device=self.device))
        black = black.float().cpu().unflatten(1, (tokens.shape[1], -1)).mean(dim=2)
        nothing = self.perceiver(black)
        pictures = []
        for row, number in zip(tokens, seeds, strict=True):
            said = self.perceiver(torch.from_numpy(np.asarray(row, dtype=np.float32))[None])
            pictures.append(self.painter.paint(said[0], said[1], nothing[0], nothing[1], number))
        return pictures


class SeedX:
    """SEED-X in a chat of one turn.

    Reads from a pack `image_encoder`, `mllm` and `vae`, as `visavis pack import` writes them, and `seed_detokenizer`:
    `unet/` and `scheduler/` of diffusers, `config.json` (`PerceiverConfig`) and `model.safetensors` (the perceiver);
    its settings: `steps` (30), `guidance` (7.5).

    Args:
        model: The MLLM, with what it paints with.
    """

    def __init__(self, model: ChatModel) -> None:
        self.talker = Talker(model)

    @classmethod
    def from_pack(cls, pack: Pack) -> SeedX:
        """Loads all parts."""
        folder = pack.part("seed_detokenizer")
        perceiver = Perceiver(PerceiverConfig(**load_config(folder)))
        perceiver.load_state_dict(load_file(folder / _WEIGHTS))
        model = _Model.from_pack(pack)
        assert isinstance(model, _Model)
        model.perceiver = perceiver.float().eval()
        model.painter = SdxlPainter.from_pack(pack, "seed_detokenizer", steps=30, guidance=7.5)
        return cls(model)

    def generate(self, prompt: str, images: Sequence[Picture], seed: int = 0) -> Picture | None:
        """Asks for a picture in one turn, all pictures before the words. See `System`."""
        message = Message(USER, (*images, prompt))
        return self.talker.answer([Request([message], Wish(seed=seed))])[0].picture
