"""Training of the latent autoencoder: diffusers' `AutoencoderDC`, 64 px pictures to latents [32, 8, 8].

    python -m visavis.pretrain.autoencoder --work .work/vae --out .work/parts/vae --seconds 1000

Source of the architecture: DC-AE (arXiv 2410.10733); its space-to-depth shortcuts make a small net learn fast.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC
from numpy.typing import NDArray
from torch import Tensor, nn

from visavis.files import atomic_dir, write_json
from visavis.models.pixels import to_tensor
from visavis.packs.saving import save_half
from visavis.pretrain.pictures import PictureSet
from visavis.pretrain.timed import one_cycle, timed_steps

# Block 0 has no layers, so the first convolution already halves the side and nothing runs at 64 px.
CONFIG: Mapping[str, Any] = {
    "in_channels": 3,
    "latent_channels": 32,
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_block_out_channels": (16, 32, 64, 128),
    "decoder_block_out_channels": (16, 32, 64, 128),
    "encoder_layers_per_block": (0, 1, 1, 1),
    "decoder_layers_per_block": (0, 1, 1, 1),
    "encoder_qkv_multiscales": ((), (), (), ()),
    "decoder_qkv_multiscales": ((), (), (), ()),
}

_BATCH = 16
_PEAK_RATE = 2e-3
# The rest of the time goes to the decoder alone: the latents stay, and so does all that was learned on them.
_JOINT_SHARE = 0.7
_MSE_WEIGHT = 1.0
_EDGE_WEIGHT = 0.25
_MOMENT_WEIGHT = 0.02
_LATENT_NOISE = 0.05
_EVALUATED = 256
_STATISTICS = 512


def autoencoder_loss(model: AutoencoderDC, pictures: Tensor, generator: torch.Generator) -> Tensor:
    """L1, squared and edge differences of the reconstruction, plus the moments of the latents.

    The latents are pulled to mean 0 and deviation 1 in every channel, and the decoder sees them with a little
    noise: a generator of latents then works in an even space, and its small errors stay small in the picture.

    Args:
        model: The autoencoder in training.
        pictures: [B, 3, H, W] in [-1, 1].
        generator: Source of the noise.
    """
    latents = model.encode(pictures, return_dict=False)[0]
    noise = torch.randn(latents.shape, generator=generator)
    output = model.decode(latents + _LATENT_NOISE * noise, return_dict=False)[0]
    error = output - pictures
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    deviation, mean = torch.std_mean(latents, dim=(0, 2, 3))
    moments = mean.square().mean() + (deviation - 1).square().mean()
    loss: Tensor = error.abs().mean() + _MSE_WEIGHT * error.square().mean()
    return loss + _EDGE_WEIGHT * edges + _MOMENT_WEIGHT * moments


def train_autoencoder(
    work: Path, out: Path, seconds: float, seed: int = 0, pictures: Path | None = None
) -> dict[str, Any]:
    """Trains, measures and saves the autoencoder; goes on from the checkpoint in `work` if there is one.

    Args:
        work: Folder of the checkpoint.
        out: Folder of the result: `config.json`, fp16 safetensors, `figures.json`.
        seconds: Processor seconds on one thread, over all sittings.
        seed: Seed of weights and batches.
        pictures: Folder with the picture sets `train` and `eval`; default: `pictures` beside `work`.

    Returns:
        The figures: PSNR in dB on unseen people by kind of picture, and the moments of the latents.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    folder = pictures or work.parent / "pictures"
    train, unseen = PictureSet.open(folder / "train"), PictureSet.open(folder / "eval")
    model = AutoencoderDC(**CONFIG)
    _fit(model, model, train, work / "checkpoint.pt", seconds * _JOINT_SHARE, seed)
    model.encoder.requires_grad_(False)
    _fit(model, model.decoder, train, work / "decoder.pt", seconds * (1 - _JOINT_SHARE), seed + 1)
    model.eval()
    sample = np.linspace(0, len(train.images) - 1, _STATISTICS).astype(int)
    latents = encode(model, train.images[sample])
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    figures = {**evaluate(model, unseen), **_moments(latents)}
    figures["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    figures["seconds"] = seconds
    with atomic_dir(out) as temporary:
        save_half(model, temporary)
        write_json(temporary / "figures.json", figures)
    return figures


def _fit(
    model: AutoencoderDC, trained: nn.Module, train: PictureSet, checkpoint: Path, seconds: float, seed: int
) -> None:
    """Trains one part of the model on random, sometimes mirrored pictures until the time is spent."""
    optimizer = torch.optim.AdamW(trained.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    state = {"model": model, "optimizer": optimizer}
    for tick in timed_steps(checkpoint, state, seconds, f"autoencoder {checkpoint.stem}"):
        rng = np.random.default_rng([seed, tick.step])
        chosen = np.sort(rng.integers(len(train.images), size=_BATCH))
        batch = to_tensor(train.images[chosen])
        if rng.random() < 0.5:
            batch = batch.flip(-1)
        loss = autoencoder_loss(model, batch, torch.Generator().manual_seed(seed * 1_000_003 + tick.step))
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(tick.progress, _PEAK_RATE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        if tick.step % 20 == 0:
            tick.note = f"loss {loss.item():.4f}"


@torch.no_grad()
def encode(model: AutoencoderDC, pictures: NDArray[np.uint8], batch: int = 64) -> Tensor:
    """Returns the raw latents [N, C, h, w] of uint8 pictures [N, H, W, 3], not yet scaled."""
    parts = [
        model.encode(to_tensor(pictures[i : i + batch]), return_dict=False)[0]
        for i in range(0, len(pictures), batch)
    ]
    return torch.cat(parts)


@torch.no_grad()
def psnr(model: AutoencoderDC, pictures: NDArray[np.uint8], batch: int = 64) -> Tensor:
    """Returns the PSNR in dB of each reconstruction, [N], for uint8 pictures [N, H, W, 3]."""
    parts = []
    for i in range(0, len(pictures), batch):
        truth = to_tensor(pictures[i : i + batch])
        error = (model(truth, return_dict=False)[0].clamp(-1, 1) - truth) / 2
        parts.append(-10 * error.square().mean(dim=(1, 2, 3)).clamp_min(1e-10).log10())
    return torch.cat(parts)


def evaluate(model: AutoencoderDC, unseen: PictureSet) -> dict[str, Any]:
    """Returns the mean PSNR in dB on pictures of unseen people, apart for each kind of picture."""
    groups = {
        "pair": unseen.select("scene", "pair"),
        "portrait": unseen.select("scene", "portrait"),
        "closeup": unseen.select("closeup"),
        "empty": unseen.select("scene", "empty"),
    }
    return {
        f"psnr_db_{name}": round(float(psnr(model, unseen.images[rows[:_EVALUATED]]).mean()), 2)
        for name, rows in groups.items()
    }


def _moments(latents: Tensor) -> dict[str, float]:
    deviation, mean = torch.std_mean(latents, dim=(0, 2, 3))
    return {
        "latent_std": round(float(latents.std()), 4),
        "latent_channel_std_min": round(float(deviation.min()), 4),
        "latent_channel_std_max": round(float(deviation.max()), 4),
        "latent_channel_mean_max": round(float(mean.abs().max()), 4),
    }


def main() -> None:
    """Trains from the command line."""
    parser = argparse.ArgumentParser(description="Train the latent autoencoder of the bundled pack.")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(train_autoencoder(given.work, given.out, given.seconds, given.seed))


if __name__ == "__main__":
    main()
