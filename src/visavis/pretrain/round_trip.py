"""How well a picture survives encoder and DiT: the pack's transformer is tuned to read image tokens, then judged.

What is tuned here is thrown away; the main job tunes its own detokenizer on its own pictures.

    python -m visavis.pretrain.round_trip --parts .work/parts --steps 300
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel

from visavis.files import read_json, write_json
from visavis.models.autoencoder import from_latents
from visavis.models.detokenizer import DENOISER_FOLDER, Detokenizer
from visavis.models.image_encoder import ImageEncoder
from visavis.models.pixels import to_tensor
from visavis.pretrain.encoder import psnr_db
from visavis.pretrain.mllm import encode_set
from visavis.pretrain.pictures import PictureSet
from visavis.pretrain.text_to_image import encode_latents
from visavis.training.config import OptimConfig
from visavis.training.detokenizer import reconstruct

SAMPLE_STEPS = 4
_JUDGED = 256


def measure_round_trip(
    parts: Path, pictures: Path, unseen: Path, steps: int = 300, batch_size: int = 16
) -> dict[str, float]:
    """Tunes the pack's DiT on encoder tokens and returns the PSNR in dB on unseen scenes and close-ups.

    Args:
        parts: Folder of the finished parts.
        pictures: Picture set to tune on.
        unseen: Picture set of other people.
        steps: Tuning steps.
        batch_size: Pictures of a step.
    """
    encoder = ImageEncoder.from_pretrained(parts / "image_encoder").eval()
    autoencoder = AutoencoderDC.from_pretrained(parts / "vae", torch_dtype=torch.float32).eval()
    folder = parts / "text_to_image"
    denoiser = PixArtTransformer2DModel.from_pretrained(folder / DENOISER_FOLDER, torch_dtype=torch.float32)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    known = PictureSet.open(pictures)
    tokens = encode_set(encoder, known)
    latents = encode_latents(autoencoder, known)
    torch.manual_seed(0)
    detokenizer = Detokenizer.from_text_to_image(denoiser, scheduler, tokens.shape[2])
    config = OptimConfig(steps=steps, batch_size=batch_size, lr=1e-3, warmup=20, log_every=50)
    with tempfile.TemporaryDirectory() as work:
        reconstruct(
            detokenizer, tokens, latents, config, Path(work), lambda values, step: print(step, values)
        )
    figures: dict[str, float] = {}
    fresh = PictureSet.open(unseen)
    fresh_tokens = encode_set(encoder, fresh)
    for kind, key in (("scene", "round_trip_psnr_db"), ("closeup", "round_trip_closeup_psnr_db")):
        rows = fresh.select(kind)[:_JUDGED]
        with torch.no_grad():
            read = torch.from_numpy(fresh_tokens[rows].astype(np.float32))
            painted = from_latents(autoencoder, detokenizer.sample(read, SAMPLE_STEPS))
        figures[key] = psnr_db(painted, to_tensor(fresh.images[rows]))
    return figures


def main() -> None:
    """Measures from the command line and adds the figures to those of the transformer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, default=Path(".work/parts"))
    parser.add_argument("--pictures", type=Path, default=Path(".work/pictures/train"))
    parser.add_argument("--unseen", type=Path, default=Path(".work/pictures/eval"))
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure_round_trip(given.parts, given.pictures, given.unseen, given.steps)
    path = given.parts / "text_to_image" / "figures.json"
    write_json(path, read_json(path) | figures)
    print(figures)


if __name__ == "__main__":
    main()
