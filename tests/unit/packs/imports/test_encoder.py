"""Qwen-VL's ViT becomes the part `image_encoder`, every tensor accounted for."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from published import qwen_vit, save
from torch import Tensor
from torch.nn import functional

from visavis.errors import VisavisError
from visavis.packs import load_pack
from visavis.packs.imports import ImportOptions, import_pack
from visavis.packs.loaders import load_image_encoder


def imported(tmp_path: Path, tensors: dict[str, Tensor], name: str = "qwen_vit_G.pt") -> Path:
    source = save(tmp_path / "source" / name, tensors)
    import_pack({"image_encoder": source}, tmp_path / "pack", ImportOptions())
    return tmp_path / "pack"


def plain_vit(weights: dict[str, Tensor], pictures: Tensor) -> Tensor:
    """Qwen-VL's computation written out, for pictures [B, 3, 448, 448] that are normalised already."""

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6
        )

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def resized(table: Tensor) -> Tensor:
        grid = table.view(1, 16, 16, -1).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, size=(32, 32), mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1).flatten(1, 2)[0]

    x = functional.conv2d(pictures, weights["conv1.weight"], stride=14).flatten(2).transpose(1, 2)
    x = norm(x + resized(weights["positional_embedding"]), "ln_pre")
    batch, length, width = x.shape
    heads = width // 104
    for layer in range(2):
        block = f"transformer.resblocks.{layer}."
        fused = linear(norm(x, f"{block}ln_1"), f"{block}attn.in_proj").view(batch, length, heads, 312)
        q, k, v = (part.transpose(1, 2) for part in fused.split(104, dim=-1))
        weight = ((q / math.sqrt(104)) @ k.transpose(2, 3)).softmax(dim=-1)
        x = x + linear((weight @ v).transpose(1, 2).reshape(batch, length, width), f"{block}attn.out_proj")
        hidden = functional.gelu(linear(norm(x, f"{block}ln_2"), f"{block}mlp.c_fc"))
        x = x + linear(hidden, f"{block}mlp.c_proj")
    kv = norm(x @ weights["attn_pool.kv_proj.weight"].T, "attn_pool.ln_kv")
    query = norm(weights["attn_pool.query"], "attn_pool.ln_q") + weights["attn_pool.pos_embed"]
    dim = query.shape[-1]
    in_proj, bias = weights["attn_pool.attn.in_proj_weight"], weights["attn_pool.attn.in_proj_bias"]
    inputs = (query.expand(batch, -1, -1), kv + resized(weights["attn_pool.pos_embed"]), kv)
    q, k, v = (
        (value @ in_proj[at * dim : (at + 1) * dim].T + bias[at * dim : (at + 1) * dim])
        .view(batch, -1, dim // 128, 128)
        .transpose(1, 2)
        for at, value in enumerate(inputs)
    )
    mixed = ((q / math.sqrt(128)) @ k.transpose(2, 3)).softmax(dim=-1) @ v
    pooled = linear(mixed.transpose(1, 2).reshape(batch, -1, dim), "attn_pool.attn.out_proj")
    return norm(pooled, "ln_post") @ weights["proj"]


def test_imported_encoder_computes_what_the_published_one_does(tmp_path: Path) -> None:
    weights = qwen_vit()
    encoder = load_image_encoder(load_pack(imported(tmp_path, weights)))
    assert (encoder.config.image_size, encoder.config.heads, encoder.config.mlp_width) == (448, 2, 1024)
    pictures = torch.rand(1, 3, 448, 448, generator=torch.Generator().manual_seed(3)) * 2 - 1
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (encoder.config.mean, encoder.config.std)
    )
    with torch.no_grad():
        found, wanted = encoder(pictures), plain_vit(weights, ((pictures + 1) / 2 - mean) / std)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_every_tensor_is_in_the_report(tmp_path: Path) -> None:
    prefix = "transformer.visual."
    weights = qwen_vit(prefix=prefix) | {"transformer.wte.weight": torch.zeros(4, 4)}
    weights[f"{prefix}extra"] = torch.zeros(3)
    report = json.loads((imported(tmp_path, weights) / "import-report.json").read_text())
    rows = {row["source"]: row for row in report["tensors"]}
    assert set(rows) == set(weights)
    fc = rows[f"{prefix}transformer.resblocks.1.mlp.c_fc.weight"]
    assert fc["used_as"] == "blocks.1.mlp.0.weight" and fc["shape"] == [1024, 208]
    assert rows[f"{prefix}extra"]["used_as"] is None and "no such tensor" in rows[f"{prefix}extra"]["reason"]
    assert "language model" in rows["transformer.wte.weight"]["reason"]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_missing_tensor_is_named_with_its_shape(tmp_path: Path, suffix: str) -> None:
    weights = qwen_vit()
    del weights["transformer.resblocks.1.attn.out_proj.bias"]
    with pytest.raises(
        VisavisError, match=r"resblocks\.1\.attn\.out_proj\.bias is missing; wanted shape \[208\]"
    ):
        imported(tmp_path, weights, f"qwen.{suffix}")
    assert not (tmp_path / "pack").exists() and not list(tmp_path.glob(".pack*"))


def test_a_wrong_shape_is_named_found_and_wanted(tmp_path: Path) -> None:
    weights = qwen_vit()
    weights["transformer.resblocks.1.mlp.c_fc.weight"] = torch.zeros(1000, 208)
    with pytest.raises(VisavisError, match=r"1\.mlp\.c_fc\.weight of .*\[1000, 208\], wanted \[1024, 208\]"):
        imported(tmp_path, weights)
