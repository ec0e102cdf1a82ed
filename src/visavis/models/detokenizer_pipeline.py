"""The detokenizer as a diffusers pipeline: image tokens in, pictures out.

diffusers finds the class of a saved pipeline among its own names, so importing this module adds ours to them; then
`DiffusionPipeline.from_pretrained(folder)` reads a detokenizer without running any code that lies in the folder.
"""

from __future__ import annotations

import diffusers
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor, nn

from visavis.models.autoencoder import from_latents
from visavis.models.denoisers import Denoiser
from visavis.models.detokenizer import Detokenizer, Scheduler
from visavis.models.token_connector import TokenConnector


class DetokenizerPipeline(DiffusionPipeline):
    """Paints pictures from image tokens.

    Args:
        denoiser: PixArt, SANA or UNet, its input as wide as the connector says.
        scheduler: Of the objective that it was tuned with.
        connector: Reads the tokens.
        vae: Decodes latents; without one the pipeline gives latents.
    """

    model_cpu_offload_seq = "connector->denoiser->vae"
    _optional_components = ("vae",)

    def __init__(
        self,
        denoiser: Denoiser,
        scheduler: Scheduler,
        connector: TokenConnector,
        vae: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler, connector=connector, vae=vae)

    @torch.no_grad()
    def __call__(
        self,
        tokens: Tensor,
        num_inference_steps: int = 8,
        guidance_scale: float | None = None,
        seed: int = 0,
        sources: Tensor | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """Paints.

        Args:
            tokens: `[B, N, d]`.
            num_inference_steps: Evaluations of the network for a picture.
            guidance_scale: Of classifier-free guidance; None takes what the detokenizer was saved with.
            seed: Same seed, same pictures.
            sources: `[B, C, h, w]`, latents of condition images.
            output_type: `pil`, `np`, `pt` or `latent`.

        Returns:
            Its `images`: pictures, or latents for `latent` or a pipeline without an autoencoder.
        """
        painter = Detokenizer(self.denoiser, self.scheduler, self.connector).eval()
        read = tokens.to(device=self.device, dtype=self.connector.dtype)
        latents = painter.sample(read, num_inference_steps, seed, guidance_scale, sources)
        if self.vae is None or output_type == "latent":
            return ImagePipelineOutput(images=latents)
        decoded = from_latents(self.vae, latents)
        return ImagePipelineOutput(images=VaeImageProcessor().postprocess(decoded, output_type))


diffusers.DetokenizerPipeline = DetokenizerPipeline
