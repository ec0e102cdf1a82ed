"""An SDXL network that paints from embeddings of pictures in place of words, with diffusers' own loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visavis.evaluation.items import Picture
from visavis.models.device import compute_device
from visavis.packs import Pack

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def weights_dtype() -> torch.dtype:
    """Returns the type that systems of this size are run in: bfloat16 on a GPU, float32 without one."""
    return torch.bfloat16 if compute_device().type == "cuda" else torch.float32


def pixels_of(picture: Picture, size: int) -> Tensor:
    """Returns a picture as CLIP's family reads it: `[1, 3, size, size]`, normalised by CLIP's mean and deviation."""
    from visavis.data.crops import resized

    tensor = torch.from_numpy(np.array(resized(picture, size))).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return ((tensor - mean) / std)[None]


class SdxlPainter:
    """Paints with the UNet, autoencoder and Euler steps of an SDXL pipeline.

    Args:
        unet: An SDXL-style `UNet2DConditionModel`.
        vae: Its autoencoder.
        scheduler: Folder of its scheduler.
        steps: Evaluations of the network.
        guidance: Scale of classifier-free guidance.
    """

    def __init__(self, unet: Any, vae: Any, scheduler: Path, steps: int, guidance: float) -> None:
        from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

        self.steps, self.guidance = steps, guidance
        self.pipeline = StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=EulerDiscreteScheduler.from_pretrained(scheduler),
        ).to(compute_device())
        self.pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def from_pack(cls, pack: Pack, part: str, *, steps: int, guidance: float) -> SdxlPainter:
        """Loads `unet/` and `scheduler/` of a part, and the part `vae`.

        Args:
            pack: Whose parts; the settings `steps` and `guidance` of the part come first.
            part: Name of the part.
            steps: Evaluations of the network.
            guidance: Scale of classifier-free guidance.
        """
        from diffusers import UNet2DConditionModel

        from visavis.packs.loaders import load_autoencoder

        folder, dtype = pack.part(part), weights_dtype()
        unet = UNet2DConditionModel.from_pretrained(
            folder, subfolder="unet", torch_dtype=dtype, use_safetensors=True
        )
        settings = {"steps": steps, "guidance": guidance, **pack.settings(part)}
        return cls(unet, load_autoencoder(pack, dtype=dtype), folder / "scheduler", **settings)

    def paint(self, tokens: Tensor, pooled: Tensor, negative: Tensor, nothing: Tensor, seed: int) -> Picture:
        """Paints one picture `[H, W, 3]`.

        Args:
            tokens: `[1, N, d]`, what the picture shows.
            pooled: `[1, p]`, the same in one vector.
            negative: `[1, N, d]`, what guidance leads away from.
            nothing: `[1, p]`, the same in one vector.
            seed: Of the noise.
        """
        unet = self.pipeline.unet
        given = (value.to(unet.device, unet.dtype) for value in (tokens, negative, pooled, nothing))
        said, unsaid, said_pooled, unsaid_pooled = given
        made = self.pipeline(
            prompt_embeds=said,
            negative_prompt_embeds=unsaid,
            pooled_prompt_embeds=said_pooled,
            negative_pooled_prompt_embeds=unsaid_pooled,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        ).images[0]
        return (255 * made).round().astype(np.uint8)
