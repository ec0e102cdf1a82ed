"""The networks that remove noise: PixArt, SANA and SDXL-style UNets of diffusers, told by cross-attention.

Their differences (what they are called with, where their input can be widened) are kept in this module; so are the
keys and values of the condition, which are the same in every step of a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import PixArtTransformer2DModel, SanaTransformer2DModel, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from visavis.errors import VisavisError
from visavis.models.checkpoint import load_config

Denoiser: TypeAlias = PixArtTransformer2DModel | SanaTransformer2DModel | UNet2DConditionModel
DENOISERS: dict[str, Any] = {
    kind.__name__: kind for kind in (PixArtTransformer2DModel, SanaTransformer2DModel, UNet2DConditionModel)
}
NO_EXTRA_CONDITION = {"resolution": None, "aspect_ratio": None}
_PIXELS_PER_LATENT = 8
_Cache: TypeAlias = dict[int, tuple[Tensor, Tensor]]
_cache: ContextVar[_Cache | None] = ContextVar("condition_cache", default=None)


def load_denoiser(folder: Path, dtype: torch.dtype = torch.float32) -> Denoiser:
    """Reads a network of the class that its `config.json` names.

    Raises:
        VisavisError: If the class is unknown, or the weights do not fill it exactly.
    """
    name = load_config(folder).get("_class_name", "")
    if name not in DENOISERS:
        raise VisavisError(
            f"{folder}: _class_name is {name!r}, which is no known denoiser",
            fix=f"use one of: {', '.join(DENOISERS)}",
        )
    denoiser, report = DENOISERS[name].from_pretrained(
        folder, torch_dtype=dtype, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
    )
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]
    if wrong:
        raise VisavisError(
            f"{folder}: {len(wrong)} weights do not fit its config.json, such as {wrong[0]}",
            fix="save the network again with `save_pretrained`",
        )
    loaded: Denoiser = denoiser
    return loaded


def condition_dim(denoiser: Denoiser) -> int:
    """Returns the channels of the cross-attention condition."""
    if isinstance(denoiser, UNet2DConditionModel):
        width = denoiser.config.cross_attention_dim
        return int(width if isinstance(width, int) else width[0])
    return int(denoiser.config.caption_channels)


def pooled_dim(denoiser: Denoiser) -> int:
    """Returns the channels of the pooled condition of an SDXL-style UNet; 0 if the network has none."""
    config = denoiser.config
    if config.get("addition_embed_type") != "text_time":
        return 0
    return int(config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim)


def widen_input(denoiser: Denoiser, channels: int) -> None:
    """Gives the first convolution more input channels; the new weights are zero, so the output stays as it was.

    Source: SEED-X stage 2 (a condition map beside the noisy latent).
    """
    owner, name = denoiser, "conv_in"
    if isinstance(denoiser, PixArtTransformer2DModel):
        owner, name = denoiser.pos_embed, "proj"
    elif isinstance(denoiser, SanaTransformer2DModel):
        owner, name = denoiser.patch_embed, "proj"
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


def denoise(
    denoiser: Denoiser, x: Tensor, timestep: Tensor, condition: Tensor, pooled: Tensor | None = None
) -> Tensor:
    """Calls any of the networks.

    Args:
        denoiser: The network.
        x: `[B, C_in, h, w]`.
        timestep: `[B]`, 0 to 1000.
        condition: `[B, N, c]`.
        pooled: `[B, p]`, for an SDXL-style UNet.

    Returns:
        As many channels as the network has; one with learned variance has it in the second half.
    """
    pixels = _PIXELS_PER_LATENT * x.shape[-1]
    if isinstance(denoiser, SanaTransformer2DModel):
        scaled = timestep * denoiser.config.timestep_scale
        output = denoiser(x, encoder_hidden_states=condition, timestep=scaled).sample
    elif isinstance(denoiser, PixArtTransformer2DModel):
        extra: dict[str, Any] = NO_EXTRA_CONDITION
        if denoiser.use_additional_conditions:
            extra = {
                "resolution": x.new_full((len(x), 2), pixels),
                "aspect_ratio": x.new_ones((len(x), 1)),
            }
        output = denoiser(
            x, encoder_hidden_states=condition, timestep=timestep, added_cond_kwargs=extra
        ).sample
    else:
        added = None
        if pooled is not None:
            size = x.new_tensor([pixels, pixels, 0, 0, pixels, pixels]).expand(len(x), 6)
            added = {"text_embeds": pooled, "time_ids": size}
        output = denoiser(x, timestep, encoder_hidden_states=condition, added_cond_kwargs=added).sample
    result: Tensor = output
    return result


class ConditionAttention:
    """Cross-attention whose keys and values are computed once inside `condition_kept`, else at every call.

    diffusers' own `TextKVCache` knows only blocks that attend to picture and text at once.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attends; shapes as in diffusers' `AttnProcessor2_0`, without a mask."""
        cache = _cache.get()
        known = None if cache is None else cache.get(id(attn))
        if known is None:
            known = self._project(attn, encoder_hidden_states)
            if cache is not None:
                cache[id(attn)] = known
        query = attn.to_q(hidden_states)
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        mixed = scaled_dot_product_attention(_heads(attn, query), *known)
        joined = mixed.transpose(1, 2).flatten(2)
        output: Tensor = attn.to_out[1](attn.to_out[0](joined))
        return output / attn.rescale_output_factor

    def _project(self, attn: Attention, condition: Tensor) -> tuple[Tensor, Tensor]:
        key, value = attn.to_k(condition), attn.to_v(condition)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        return _heads(attn, key), _heads(attn, value)


def _heads(attn: Attention, x: Tensor) -> Tensor:
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def keep_conditions(denoiser: Denoiser) -> None:
    """Lets every cross-attention of a network keep its keys and values inside `condition_kept`."""
    for module in denoiser.modules():
        if isinstance(module, Attention) and module.is_cross_attention:
            module.set_processor(ConditionAttention())


@contextmanager
def condition_kept() -> Iterator[None]:
    """While it lasts, one condition and batch: what the first call made of the condition serves the others."""
    token = _cache.set({})
    try:
        yield
    finally:
        _cache.reset(token)
