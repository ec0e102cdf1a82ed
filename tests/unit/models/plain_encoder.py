"""Qwen-VL's encoder and resampler written out: loops over patches, heads and pictures, no module of torch's."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from visavis.models.image_encoder import ImageEncoderConfig


def plain_norm(x: Tensor, state: dict[str, Tensor], name: str, eps: float) -> Tensor:
    """Layer normalisation over the last axis."""
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def plain_positions(dim: int, grid: int) -> Tensor:
    """The sine-cosine table entry by entry: first half of the channels from the column, second from the row."""
    table = torch.zeros(grid * grid, dim, dtype=torch.float64)
    half, quarter = dim // 2, dim // 4
    for row in range(grid):
        for column in range(grid):
            for part, coordinate in enumerate((column, row)):
                for i in range(quarter):
                    angle = coordinate / 10000 ** (i / quarter)
                    table[row * grid + column, part * half + i] = math.sin(angle)
                    table[row * grid + column, part * half + quarter + i] = math.cos(angle)
    return table


def plain_resize(table: Tensor, side: int) -> Tensor:
    """A square table, resized bicubically to `side * side` rows."""
    source = math.isqrt(len(table))
    if source == side:
        return table
    picture = table.T.reshape(1, -1, source, source)
    resized = functional.interpolate(picture, (side, side), mode="bicubic", align_corners=False)
    return resized.reshape(-1, side * side).T


def plain_resampler(state: dict[str, Tensor], x: Tensor, heads: int, eps: float) -> Tensor:
    """Cross-attention from learned queries, one picture and one head at a time."""
    dim = state["query"].shape[1]
    if "kv_proj.weight" in state:
        x = x @ state["kv_proj.weight"].T
    value_in = plain_norm(x, state, "ln_kv", eps)
    query_in = plain_norm(state["query"], state, "ln_q", eps) + state["pos_embed"]
    key_in = value_in + plain_resize(state["pos_embed"], math.isqrt(x.shape[1]))
    maps, biases = state["attn.in_proj_weight"].split(dim), state["attn.in_proj_bias"].split(dim)
    query = query_in @ maps[0].T + biases[0]
    size = dim // heads
    pictures = []
    for key_of_one, value_of_one in zip(key_in, value_in, strict=True):
        key, value = key_of_one @ maps[1].T + biases[1], value_of_one @ maps[2].T + biases[2]
        mixed = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = torch.einsum("qd,kd->qk", query[:, own], key[:, own]) / math.sqrt(size)
            mixed.append(scores.softmax(-1) @ value[:, own])
        joined = torch.cat(mixed, dim=-1)
        pictures.append(joined @ state["attn.out_proj.weight"].T + state["attn.out_proj.bias"])
    return torch.stack(pictures)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere, biases and norms included."""
    for name, parameter in module.named_parameters():
        if not name.endswith("pos_embed"):
            torch.nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def plain_encoder(state: dict[str, Tensor], config: ImageEncoderConfig, pictures: Tensor) -> Tensor:
    """Qwen-VL's ViT written out: patches by hand, q, k and v of each head from the fused map."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (config.mean, config.std))
    side, size, width = config.image_size // config.patch_size, config.patch_size, config.width
    head = width // config.heads
    outputs = []
    for picture in pictures:
        picture = ((picture + 1) / 2 - mean) / std
        rows = []
        for y in range(side):
            for x in range(side):
                patch = picture[:, y * size : (y + 1) * size, x * size : (x + 1) * size]
                rows.append(torch.einsum("ochw,chw->o", state["conv1.weight"], patch))
        hidden = torch.stack(rows) + plain_resize(state["positional_embedding"], side)
        hidden = plain_norm(hidden, state, "ln_pre", 1e-6)
        for layer in range(config.layers):
            own = {
                k.removeprefix(f"blocks.{layer}."): v
                for k, v in state.items()
                if k.startswith(f"blocks.{layer}.")
            }
            fused = (
                plain_norm(hidden, own, "ln_1", 1e-6) @ own["attn.in_proj.weight"].T
                + own["attn.in_proj.bias"]
            )
            mixed = []
            for number in range(config.heads):
                start = 3 * head * number
                q, k, v = (fused[:, start + head * i : start + head * (i + 1)] for i in range(3))
                mixed.append((torch.einsum("qd,kd->qk", q, k) / math.sqrt(head)).softmax(-1) @ v)
            hidden = hidden + torch.cat(mixed, -1) @ own["attn.out_proj.weight"].T + own["attn.out_proj.bias"]
            inner = plain_norm(hidden, own, "ln_2", 1e-6) @ own["mlp.0.weight"].T + own["mlp.0.bias"]
            hidden = hidden + functional.gelu(inner) @ own["mlp.2.weight"].T + own["mlp.2.bias"]
        outputs.append(hidden)
    pool = {k.removeprefix("attn_pool."): v for k, v in state.items() if k.startswith("attn_pool.")}
    pooled = plain_resampler(pool, torch.stack(outputs), config.pool_heads, 1e-6)
    return plain_norm(pooled, state, "ln_post", 1e-6) @ state["proj"]
