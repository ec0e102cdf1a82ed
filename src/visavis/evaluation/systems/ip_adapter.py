"""IP-Adapter on Stable Diffusion XL: words by the text encoders, the person by the picture's CLIP features.

The usual single-round baseline: it knows no chat, so it is told all that was said at once, with the last pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from visavis.errors import VisavisError
from visavis.evaluation.items import Picture
from visavis.evaluation.systems.sdxl import weights_dtype
from visavis.models.device import compute_device
from visavis.packs import Pack


class IpAdapter:
    """A diffusers pipeline with an IP-Adapter, both as they are published.

    Reads from a pack the parts `pipeline` (an SD or SDXL pipeline as diffusers saves it) and `ip_adapter` (one
    `*.safetensors` beside `image_encoder/`); settings of the latter: `scale` (0.6), `steps` (30), `guidance` (5).

    Args:
        pipeline: The pipeline, its adapter loaded.
        scale: How strongly pictures count, 0 to 1.
        steps: Evaluations of the network.
        guidance: Scale of classifier-free guidance.
    """

    def __init__(self, pipeline: Any, scale: float = 0.6, steps: int = 30, guidance: float = 5.0) -> None:
        self.pipeline = pipeline.to(compute_device())
        self.pipeline.set_progress_bar_config(disable=True)
        self.scale, self.steps, self.guidance = scale, steps, guidance

    @classmethod
    def from_pack(cls, pack: Pack) -> IpAdapter:
        """Loads the parts `pipeline` and `ip_adapter`.

        Raises:
            VisavisError: If the adapter's folder holds no weights, or more than one file of them.
        """
        from diffusers import DiffusionPipeline

        pipeline = DiffusionPipeline.from_pretrained(
            pack.part("pipeline"), torch_dtype=weights_dtype(), use_safetensors=True
        )
        folder = pack.part("ip_adapter")
        weights = sorted(folder.glob("*.safetensors"))
        if len(weights) != 1:
            raise VisavisError(
                f"ip_adapter: {folder} holds {len(weights)} files of weights",
                fix="keep the one *.safetensors of the adapter there, beside the folder image_encoder",
            )
        pipeline.load_ip_adapter(
            str(folder), subfolder="", weight_name=weights[0].name, image_encoder_folder="image_encoder"
        )
        return cls(pipeline, **pack.settings("ip_adapter"))

    def generate(self, prompt: str, images: Sequence[Picture], seed: int = 0) -> Picture:
        """Paints; without a picture the adapter counts for nothing. See `System`."""
        self.pipeline.set_ip_adapter_scale(self.scale if len(images) else 0.0)
        size = self.pipeline.image_encoder.config.image_size
        shown = [Image.fromarray(picture) for picture in images] or [Image.new("RGB", (size, size))]
        made = self.pipeline(
            prompt=prompt.replace("\n", ". "),
            ip_adapter_image=[shown],
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        ).images[0]
        return (255 * made).round().astype(np.uint8)
