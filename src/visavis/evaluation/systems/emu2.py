"""EMU2 for generation: EVA-CLIP reads, LLaMA says 64 features one by one, an SDXL network paints them.

Source: Emu2 `emu/{emu,eva_vit,diffusion}.py`. Its own loop reads the whole prompt anew for each of the 64 features;
here the cache keeps it, which gives the same features. EMU2's weights are for non-commercial use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from visavis.evaluation.items import Picture
from visavis.evaluation.systems.sdxl import SdxlPainter, pixels_of, weights_dtype
from visavis.models.checkpoint import load_config
from visavis.models.device import compute_device, device_of
from visavis.packs import Pack

_OPEN, _CLOSE, _PLACE = "[IMG]", "[/IMG]", "<image>"
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class EvaConfig:
    """Shape of EVA-CLIP as EMU2 uses it; the defaults are the published ones.

    Attributes:
        image_size: Side of a picture, px.
        patch_size: Side of a patch, px.
        width: Channels.
        layers: Blocks.
        head_width: Channels of a head.
        mlp_ratio: Width of a block's feed-forward over `width`.
        tokens: Features of a picture that the LLaMA reads and says, a square number.
    """

    image_size: int = 448
    patch_size: int = 14
    width: int = 1792
    layers: int = 64
    head_width: int = 112
    mlp_ratio: float = 8.571428571428571
    tokens: int = 64


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        parts = functional.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return output


class _Block(nn.Module):
    """A block that normalises what it adds, not what it reads."""

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        width, inner = config.width, int(config.width * config.mlp_ratio)
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = _Attention(width, width // config.head_width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm1(self.attn(x))
        return x + self.norm2(self.mlp["fc2"](functional.gelu(self.mlp["fc1"](x))))


class EvaEncoder(nn.Module):
    """EVA-CLIP's vision tower; weights carry the published names."""

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        self.config = config
        patches = (config.image_size // config.patch_size) ** 2
        convolution = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.patch_embed = nn.ModuleDict({"proj": convolution})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, config.width))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps pixels `[B, 3, S, S]` to features `[B, tokens, width]`, the patches' averaged square by square."""
        patches = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        side = self.config.image_size // self.config.patch_size
        grid = x[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        stride = side // int(self.config.tokens**0.5)
        return functional.avg_pool2d(grid, stride).flatten(2).transpose(1, 2)


class Emu2:
    """EMU2's visual generation.

    Reads from a pack `vae` and `emu2`: `llm/` with its tokenizer, `unet/` and `scheduler/` of diffusers, `config.json`
    (`EvaConfig`), and `model.safetensors` with `visual.*`, `project_up.weight` and `project_down.weight`; settings:
    `steps` (50), `guidance` (3).

    Args:
        encoder: Reads pictures.
        llm: A `LlamaForCausalLM`.
        tokenizer: Its tokenizer, with `[IMG]`, `[/IMG]` and `<image>`.
        up: From picture features to the LLaMA's, `[hidden, width]`.
        down: And back, `[width, hidden]`.
        painter: Paints features.
    """

    def __init__(
        self, encoder: EvaEncoder, llm: Any, tokenizer: Any, up: Tensor, down: Tensor, painter: SdxlPainter
    ) -> None:
        device = compute_device()
        self.encoder, self.llm = encoder.eval().to(device), llm.eval().to(device)
        self.tokenizer, self.painter = tokenizer, painter
        self.up, self.down = up.to(device), down.to(device)

    @classmethod
    def from_pack(cls, pack: Pack) -> Emu2:
        """Loads all parts."""
        from transformers import AutoTokenizer, LlamaForCausalLM

        folder, dtype = pack.part("emu2"), weights_dtype()
        state = {name: weight.to(dtype) for name, weight in load_file(folder / _WEIGHTS).items()}
        up, down = state.pop("project_up.weight"), state.pop("project_down.weight")
        encoder = EvaEncoder(EvaConfig(**load_config(folder))).to(dtype)
        encoder.load_state_dict({name.removeprefix("visual."): weight for name, weight in state.items()})
        return cls(
            encoder,
            LlamaForCausalLM.from_pretrained(folder / "llm", dtype=dtype, use_safetensors=True),
            AutoTokenizer.from_pretrained(folder / "llm"),
            up,
            down,
            SdxlPainter.from_pack(pack, "emu2", steps=50, guidance=3.0),
        )

    @torch.no_grad()
    def generate(self, prompt: str, images: Sequence[Picture], seed: int = 0) -> Picture:
        """Says the features of a picture and paints them. See `System`."""
        said, unsaid = self.features(prompt, images), self._unsaid
        return self.painter.paint(said, said.mean(dim=1), unsaid, unsaid.mean(dim=1), seed)

    @cached_property
    def _unsaid(self) -> Tensor:
        """What guidance leads away from: the features after no words."""
        return self.features("", [])

    @torch.no_grad()
    def features(self, prompt: str, images: Sequence[Picture]) -> Tensor:
        """Returns the features `[1, tokens, width]` that the LLaMA says after pictures and words."""
        count, size = self.encoder.config.tokens, self.encoder.config.image_size
        block = _OPEN + _PLACE * count + _CLOSE
        words = block * len(images) + prompt + _OPEN
        ids = self.tokenizer(words, return_tensors="pt").input_ids.to(device_of(self.llm))
        given = self.llm.get_input_embeddings()(ids)
        if images:
            pixels = torch.cat([pixels_of(picture, size) for picture in images]).to(self.up)
            read = functional.linear(self.encoder(pixels), self.up).flatten(0, 1)
            given[ids == self.tokenizer.convert_tokens_to_ids(_PLACE)] = read.to(given)
        cache, made = None, []
        for _ in range(count):
            output = self.llm.model(inputs_embeds=given, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            feature = functional.linear(output.last_hidden_state[:, -1:], self.down)
            made.append(feature)
            given = functional.linear(feature, self.up)
        return torch.cat(made, dim=1)
