"""What joins the LLaMA to images: connectors in and out, the place of a view, and the mixing of neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.models.image_encoder import pool_tokens
from visavis.models.resampler import Resampler


def input_connector(kind: str, token_dim: int, image_tokens: int, dim: int, heads: int) -> nn.Module:
    """Builds what the LLaMA reads images through: `[B, 4n or n, token_dim]` to `[B, n, dim]`.

    Args:
        kind: `resampler` (SEED-X: cross-attention from n queries) or `pool` (the paper: average of four).
        token_dim: Channels of an image token.
        image_tokens: Tokens n of an image block.
        dim: Width of the LLaMA.
        heads: Heads of the resampler.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind == "resampler":
        return Resampler(int(image_tokens**0.5), dim, heads, input_dim=token_dim)
    if kind == "pool":
        return PooledConnector(token_dim, image_tokens, dim)
    raise ValueError(f"input connector {kind!r} is neither resampler nor pool")


def output_connector(kind: str, token_dim: int, image_tokens: int, dim: int, heads: int) -> nn.Module:
    """Builds what turns the states of the queries `[B, n, dim]` into image tokens `[B, n, token_dim]`.

    Args:
        kind: `resampler` (SEED-X) or `linear` (LayerNorm and a linear map for each token).
        token_dim: Channels of an image token.
        image_tokens: Tokens n of an image block.
        dim: Width of the LLaMA.
        heads: Heads of the resampler.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind == "resampler":
        return Resampler(int(image_tokens**0.5), token_dim, heads, input_dim=dim)
    if kind == "linear":
        return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, token_dim))
    raise ValueError(f"output connector {kind!r} is neither resampler nor linear")


class ViewPosition(nn.Module):
    """Tells the LLaMA which part of a picture a view shows: SEED-X's `patch_pos_embed` `[4, dim]`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.randn(4, dim) * dim**-0.5)

    def forward(self, centres: Tensor) -> Tensor:
        """Maps centres `[P, 2]`, (x, y) in [0, 1], to `[P, dim]`; (0.5, 0.5) is the whole picture."""
        both: Tensor = torch.cat([centres, 1 - centres], dim=1).to(self.embed) / 2
        return both @ self.embed


class TokenShift(nn.Module):
    """Adds linear maps of the last `taps` input embeddings; zero at the start, so that a new one changes nothing."""

    def __init__(self, dim: int, taps: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(taps))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, embeddings: Tensor, previous: Tensor) -> Tensor:
        """Mixes `[B, L, D]` along the chain of predecessors `[B, L]` (-1 ends a chain)."""
        padded = torch.cat([embeddings, torch.zeros_like(embeddings[:, :1])], dim=1)
        length = embeddings.shape[1]
        chain = torch.cat([previous, previous.new_full((previous.shape[0], 1), -1)], dim=1)
        chain = torch.where(chain < 0, length, chain)
        source, output = chain, embeddings
        for linear in self.maps:
            index = source[:, :length, None].expand(-1, -1, embeddings.shape[2])
            output = output + linear(padded.gather(1, index))
            source = chain.gather(1, source)
        return output


class PooledConnector(nn.Module):
    """Average-pooled image tokens, mapped to the LLaMA's width, with a learned position for each."""

    def __init__(self, token_dim: int, image_tokens: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(token_dim, dim)
        self.position = nn.Parameter(torch.randn(image_tokens, dim) * 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps `[B, 4n, token_dim]` or `[B, n, token_dim]` to `[B, n, dim]`."""
        output: Tensor = self.linear(pooled(tokens, len(self.position))) + self.position
        return output


def pooled(tokens: Tensor, image_tokens: int) -> Tensor:
    """Returns `[B, image_tokens, d]` for tokens that are pooled already or not yet."""
    return tokens if tokens.shape[1] == image_tokens else pool_tokens(tokens)
