"""The baselines that the paper compares with, built to the same measure."""

from __future__ import annotations

from diffusers import PixArtTransformer2DModel, UNet2DConditionModel


def untrained_like(denoiser: PixArtTransformer2DModel) -> PixArtTransformer2DModel:
    """Builds the same DiT with fresh weights, to be compared with a UNet that has no others."""
    fresh: PixArtTransformer2DModel = type(denoiser).from_config(denoiser.config)
    return fresh


def unet_like(denoiser: PixArtTransformer2DModel) -> UNet2DConditionModel:
    """Builds an untrained UNet for the latents and the condition of a DiT; a step of either takes about as long.

    It has more parameters: 9.5 million beside the 3.9 million of the pack `storybook`'s DiT.

    Source: SEED-X's stage-1 detokenizer is a UNet with cross-attention to the image tokens.
    """
    dit = denoiser.config
    width = dit.num_attention_heads * dit.attention_head_dim // 2
    return UNet2DConditionModel(
        sample_size=dit.sample_size,
        in_channels=dit.in_channels,
        out_channels=dit.in_channels,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        block_out_channels=(width, 2 * width),
        layers_per_block=1,
        attention_head_dim=dit.attention_head_dim,
        cross_attention_dim=dit.caption_channels,
        norm_num_groups=16,
    )
