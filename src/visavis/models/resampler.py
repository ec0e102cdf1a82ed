"""The attention pool of Qwen-VL and SEED-X: learned queries read a sequence of any square length.

Source: SEED-X `src/models/tokenizer/qwen_visual.py`, class `Resampler`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def sincos_position_2d(dim: int, grid: int) -> Tensor:
    """Returns the fixed 2-D sine-cosine table `[grid * grid, dim]`, row by row.

    The first half of the channels codes the column, the second the row; each half is `[sin, cos]` of the coordinate
    times `10000 ** (-i / (dim / 4))`.
    """
    quarter = dim // 4
    frequency = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    coordinate = torch.arange(grid, dtype=torch.float64)
    angle = coordinate[:, None] * frequency[None]
    table = torch.cat([angle.sin(), angle.cos()], dim=1)
    column = table[None, :, :].expand(grid, grid, -1)
    row = table[:, None, :].expand(grid, grid, -1)
    return torch.cat([column, row], dim=2).reshape(grid * grid, dim).float()


def resize_positions(table: Tensor, length: int) -> Tensor:
    """Resizes a square position table `[n, dim]` to `[length, dim]` by bicubic interpolation.

    Raises:
        ValueError: If `length` is not a square number.
    """
    source, target = math.isqrt(table.shape[0]), math.isqrt(length)
    if target * target != length:
        raise ValueError(f"a sequence of {length} tokens is not a square grid")
    if source == target:
        return table
    grid = table.float().reshape(1, source, source, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(target, target), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)


class Resampler(nn.Module):
    """One cross-attention layer from `grid²` learned queries to the input; no FFN, no residual.

    Args:
        grid: Side of the query grid; the output has `grid²` tokens.
        dim: Width of the queries and of the output.
        heads: Attention heads.
        input_dim: Width of the input; projected to `dim` without bias when different.
        eps: LayerNorm epsilon (SEED-X's resamplers 1e-5, the ViT's own pool 1e-6).
    """

    def __init__(
        self, grid: int, dim: int, heads: int, input_dim: int | None = None, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(sincos_position_2d(dim, grid), requires_grad=False)
        self.query = nn.Parameter(torch.zeros(grid * grid, dim))
        nn.init.trunc_normal_(self.query, std=0.02)
        needs_projection = input_dim is not None and input_dim != dim
        self.kv_proj = nn.Linear(input_dim or dim, dim, bias=False) if needs_projection else nn.Identity()
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ln_q = nn.LayerNorm(dim, eps=eps)
        self.ln_kv = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, L, input_dim]`, L a square number, to `[B, grid², dim]`."""
        kv = self.ln_kv(self.kv_proj(x))
        query = (self.ln_q(self.query) + self.pos_embed).expand(x.shape[0], -1, -1)
        key = kv + resize_positions(self.pos_embed, x.shape[1])
        output: Tensor = self.attn(query, key, kv, need_weights=False)[0]
        return output
