"""Other systems under our scorecard: the right classes with tiny random weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from visavis.errors import VisavisError
from visavis.evaluation.systems import open_system
from visavis.evaluation.systems.emu2 import Emu2, EvaConfig, EvaEncoder
from visavis.evaluation.systems.sdxl import pixels_of
from visavis.evaluation.systems.seedx import Perceiver, PerceiverConfig
from visavis.packs import Pack

sys.path.insert(0, str(Path(__file__).parent))
import tiny_systems

FACE = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
OTHER = np.random.default_rng(1).integers(0, 255, (52, 52, 3), dtype=np.uint8)
MAKERS: dict[str, Callable[[Path], Pack]] = {
    "seedx": tiny_systems.seedx,
    "emu2": tiny_systems.emu2,
    "ip_adapter": tiny_systems.ip_adapter,
}


@pytest.mark.parametrize("name", MAKERS)
def test_words_and_pictures_and_seed_decide_what_is_painted(name: str, tmp_path: Path) -> None:
    system = open_system(name, MAKERS[name](tmp_path))
    prompt = "Generate an image: a woman on the beach"
    made = system.generate(prompt, [FACE], seed=1)
    if name == "seedx" and made is None:
        pytest.fail("the MLLM of the pack answers such words with a picture")
    assert made is not None and made.dtype == np.uint8 and made.shape == (16, 16, 3)
    again = system.generate(prompt, [FACE], seed=1)
    assert again is not None and np.array_equal(made, again)
    for words, pictures, seed in (
        (prompt, [FACE], 2),
        (prompt, [OTHER], 1),
        ("Generate an image: a man in a room", [FACE], 1),
    ):
        changed = system.generate(words, pictures, seed=seed)
        assert changed is not None and not np.array_equal(made, changed), (words, seed)
    alone = system.generate(prompt, [], seed=1)
    assert alone is not None and not np.array_equal(made, alone)
    both = system.generate(prompt, [FACE, OTHER], seed=1)
    assert both is not None and not np.array_equal(made, both)


def test_emu2_says_with_the_cache_what_its_own_loop_says(tmp_path: Path) -> None:
    system = open_system("emu2", tiny_systems.emu2(tmp_path))
    assert isinstance(system, Emu2)
    prompt = "a woman on the beach"
    size, count = tiny_systems.EVA.image_size, tiny_systems.EVA.tokens
    words = "[IMG]" + "<image>" * count + "[/IMG]" + prompt
    with torch.no_grad():
        read = functional.linear(system.encoder(pixels_of(FACE, size)), system.up)[0]
        said = torch.zeros(0, tiny_systems.EVA.width)
        for number in range(count):
            text = words + "[IMG]" + "<image>" * number
            ids = system.tokenizer(text, return_tensors="pt").input_ids
            given = system.llm.get_input_embeddings()(ids)
            places = (ids[0] == system.tokenizer.convert_tokens_to_ids("<image>")).nonzero()[:, 0]
            given[0, places[:count]] = read
            given[0, places[count:]] = functional.linear(said, system.up)
            hidden = system.llm.model(inputs_embeds=given).last_hidden_state[0]
            said = functional.linear(hidden[-number - 1 :], system.down)
        assert torch.allclose(system.features(prompt, [FACE])[0], said, atol=1e-4)


def test_the_eva_encoder_is_what_its_formula_says() -> None:
    torch.manual_seed(0)
    config = tiny_systems.EVA
    encoder = EvaEncoder(config)
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    pixels = torch.randn(2, 3, config.image_size, config.image_size)
    state = encoder.state_dict()
    with torch.no_grad():
        assert torch.allclose(encoder(pixels), plain_eva(state, pixels, config), atol=1e-4)


def plain_eva(state: dict[str, Tensor], pixels: Tensor, config: EvaConfig) -> Tensor:
    """EVA-CLIP, patch by patch and head by head."""
    size, width, side = config.patch_size, config.width, config.image_size // config.patch_size
    rows = []
    for picture in pixels:
        tokens = [state["cls_token"][0, 0]]
        for y in range(side):
            for x in range(side):
                patch = picture[:, y * size : (y + 1) * size, x * size : (x + 1) * size]
                kernel = state["patch_embed.proj.weight"]
                tokens.append((kernel * patch).sum(dim=(1, 2, 3)) + state["patch_embed.proj.bias"])
        h = torch.stack(tokens) + state["pos_embed"][0]
        for number in range(config.layers):
            own = {
                k.removeprefix(f"blocks.{number}."): v for k, v in state.items() if f"blocks.{number}." in k
            }
            q, k, v = (h @ own["attn.qkv.weight"][i * width : (i + 1) * width].T for i in range(3))
            q, v = q + own["attn.q_bias"], v + own["attn.v_bias"]
            heads = []
            for start in range(0, width, config.head_width):
                part = slice(start, start + config.head_width)
                heads.append(((q[:, part] @ k[:, part].T) / config.head_width**0.5).softmax(-1) @ v[:, part])
            attended = torch.cat(heads, dim=1) @ own["attn.proj.weight"].T + own["attn.proj.bias"]
            h = h + functional.layer_norm(attended, (width,), own["norm1.weight"], own["norm1.bias"], 1e-6)
            inner = functional.gelu(h @ own["mlp.fc1.weight"].T + own["mlp.fc1.bias"])
            fed = inner @ own["mlp.fc2.weight"].T + own["mlp.fc2.bias"]
            h = h + functional.layer_norm(fed, (width,), own["norm2.weight"], own["norm2.bias"], 1e-6)
        grid = h[1:].reshape(side, side, width)
        half = side // 2
        rows.append(
            torch.stack(
                [
                    grid[y : y + half, x : x + half].mean(dim=(0, 1))
                    for y in range(0, side, half)
                    for x in range(0, side, half)
                ]
            )
        )
    return torch.stack(rows)


def test_the_perceiver_is_what_its_formula_says() -> None:
    torch.manual_seed(0)
    config = PerceiverConfig(**tiny_systems.SEEDX_SHAPE, num_queries=6, embedding_dim=20)
    perceiver = Perceiver(config)
    for weight in perceiver.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    tokens = torch.randn(2, 9, 20)
    with torch.no_grad():
        condition, pooled = perceiver(tokens)
        expected, vector = plain_perceiver(perceiver.state_dict(), tokens, config)
    assert torch.allclose(condition, expected, atol=1e-4)
    assert torch.allclose(pooled, vector, atol=1e-4)


def plain_perceiver(s: dict[str, Tensor], tokens: Tensor, config: PerceiverConfig) -> tuple[Tensor, Tensor]:
    """The perceiver with torch's plain operations; the pool by `multi_head_attention_forward`, as SEED-X calls it."""
    dim, heads, head = config.dim, config.heads, config.dim_head

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (dim,), s[f"{name}.weight"], s[f"{name}.bias"])

    x = tokens @ s["proj_in.weight"].T + s["proj_in.bias"]
    latents = s["latents"].expand(len(tokens), -1, -1)
    for number in range(config.depth):
        name = f"layers.{number}"
        own, seen = norm(latents, f"{name}.0.norm2"), norm(x, f"{name}.0.norm1")
        both = torch.cat([seen, own], dim=1)
        q = own @ s[f"{name}.0.to_q.weight"].T
        k, v = (both @ s[f"{name}.0.to_kv.weight"].T).split(heads * head, dim=-1)
        parts = [slice(i * head, (i + 1) * head) for i in range(heads)]
        mixed = [
            (q[..., part] @ k[..., part].transpose(1, 2) / head**0.5).softmax(-1) @ v[..., part]
            for part in parts
        ]
        latents = latents + torch.cat(mixed, dim=-1) @ s[f"{name}.0.to_out.weight"].T
        inner = functional.gelu(norm(latents, f"{name}.1.0") @ s[f"{name}.1.1.weight"].T)
        latents = latents + inner @ s[f"{name}.1.3.weight"].T
    hidden = norm(latents, "norm_out")
    first, second = (hidden @ s[f"unet_proj_{i}.weight"].T + s[f"unet_proj_{i}.bias"] for i in (1, 2))
    pool = "unet_attnpool"
    seq = torch.cat([hidden.mean(dim=1, keepdim=True), hidden], dim=1) + s[f"{pool}.positional_embedding"]
    biases = [s[f"{pool}.{name}_proj.bias"] for name in "qkv"]
    weights = {f"{name}_proj_weight": s[f"{pool}.{name}_proj.weight"] for name in "qkv"}
    seq = seq.transpose(0, 1)
    out, _ = functional.multi_head_attention_forward(
        *(seq, seq, seq, dim, heads, None, torch.cat(biases), None, None, False, 0.0),
        *(s[f"{pool}.c_proj.weight"], s[f"{pool}.c_proj.bias"]),
        training=False,
        need_weights=False,
        use_separate_proj_weight=True,
        **weights,
    )
    return torch.cat([first, second], dim=-1), out[0]


def test_published_shapes_are_the_defaults() -> None:
    with torch.device("meta"):
        perceiver, encoder = Perceiver(PerceiverConfig()), EvaEncoder(EvaConfig(layers=1))
    count = sum(weight.numel() for weight in perceiver.parameters())
    assert round(count / 1e6) == 61
    shapes = {name: tuple(weight.shape) for name, weight in perceiver.state_dict().items()}
    assert shapes["layers.3.0.to_kv.weight"] == (2048, 1024)
    assert shapes["unet_attnpool.positional_embedding"] == (65, 1024)
    assert shapes["unet_attnpool.c_proj.weight"] == (1280, 1024)
    shapes = {name: tuple(weight.shape) for name, weight in encoder.state_dict().items()}
    assert shapes["pos_embed"] == (1, 1025, 1792)
    assert shapes["blocks.0.attn.qkv.weight"] == (5376, 1792)
    assert shapes["blocks.0.mlp.fc1.weight"] == (15360, 1792)


def test_a_system_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match="no system 'dalle'") as caught:
        open_system("dalle", tiny_systems.STORYBOOK)
    assert "seedx, emu2, ip_adapter" in caught.value.fix
    with pytest.raises(VisavisError, match="no part 'emu2'"):
        open_system("emu2", tiny_systems.STORYBOOK)
