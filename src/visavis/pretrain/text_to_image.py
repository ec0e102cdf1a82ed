"""The pack's text-to-image DiT: a small PixArt transformer over the autoencoder's latents, told by CLIP's words.

It knows pictures of the storybook world before it ever sees an image token; the detokenizer starts from it (the paper,
section 3.1: "text-to-image initialisation").
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, PreTrainedTokenizerBase

from visavis.files import write_json
from visavis.models.autoencoder import to_latents
from visavis.models.detokenizer import (
    DENOISER_FOLDER,
    MIN_SIGMA,
    NO_EXTRA_CONDITION,
    TRAINING_STEPS,
    draw_sigma,
)
from visavis.pretrain.clip import MAX_WORDS, row_caption
from visavis.pretrain.encoded import encoded
from visavis.pretrain.local_task import LocalTask
from visavis.pretrain.pictures import PictureSet
from visavis.pretrain.start import begin
from visavis.training.config import OptimConfig
from visavis.training.engine import train

DIT: dict[str, Any] = {
    "num_attention_heads": 6,
    "attention_head_dim": 32,
    "in_channels": 32,
    "out_channels": 32,
    "num_layers": 6,
    "cross_attention_dim": 192,
    "sample_size": 8,
    "patch_size": 1,
    "attention_bias": True,
    "use_additional_conditions": False,
}


class Condition(NamedTuple):
    """Captions as the transformer reads them: `[B, L, d]` and their mask `[B, L]`."""

    states: Tensor
    mask: Tensor


def encode_latents(autoencoder: AutoencoderDC, pictures: PictureSet) -> NDArray[np.float16]:
    """Returns scaled latents `[N, C, h, w]` of a picture set; they are kept beside it."""
    return encoded(pictures, "latents", lambda pixels: to_latents(autoencoder, pixels))


def whole_pairs(known: PictureSet) -> NDArray[np.int64]:
    """Returns the rows of whole pictures of two people."""
    return np.concatenate([known.select(kind, "pair") for kind in ("scene", "moved")])


def draw_rows(
    total: int, favoured: NDArray[np.int64], share: float, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Returns `count` of `total` rows, sorted: a share of `favoured` ones, the others drawn from all alike."""
    rows = rng.integers(total, size=count)
    if share:
        rows = np.where(rng.random(count) < share, rng.choice(favoured, size=count), rows)
    return np.sort(rows)


def clean_errors(
    model: PixArtTransformer2DModel, condition: Condition, clean: Tensor, noise: Tensor, sigma: Tensor
) -> Tensor:
    """Returns the mean squared error `[B]` of the predicted clean latents.

    Args:
        model: The transformer.
        condition: CLIP's words.
        clean: `[B, C, h, w]`, unit variance.
        noise: `[B, C, h, w]`, standard normal.
        sigma: `[B]`, noise levels.
    """
    wide = sigma.view(-1, 1, 1, 1)
    output = model(
        (1 - wide) * clean + wide * noise,
        encoder_hidden_states=condition.states,
        encoder_attention_mask=condition.mask,
        timestep=sigma * TRAINING_STEPS,
        added_cond_kwargs=NO_EXTRA_CONDITION,
    ).sample
    return (output - clean).square().mean(dim=(1, 2, 3))


@torch.no_grad()
def measure(
    model: PixArtTransformer2DModel,
    words: Callable[[list[str]], Condition],
    pictures: PictureSet,
    latents: NDArray[np.float16],
    count: int = 512,
) -> dict[str, float]:
    """Returns the error of the clean latent over the noise levels of training: all pictures, and whole ones of two."""
    figures = {}
    pools = {"": np.arange(len(pictures.rows)), "_pairs": whole_pairs(pictures)}
    for suffix, pool in pools.items():
        rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
        errors = []
        for rows in np.array_split(np.sort(rng.choice(pool, count)), -(-count // 64)):
            clean = torch.from_numpy(latents[rows].astype(np.float32))
            texts = [row_caption(pictures.rows[int(i)], rng) for i in rows]
            noise = torch.randn(clean.shape, generator=generator)
            errors.append(clean_errors(model, words(texts), clean, noise, draw_sigma(len(rows), generator)))
        figures[f"clean_latent_mse{suffix}"] = float(torch.cat(errors).mean())
    return figures


def _reader(model: CLIPTextModel, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], Condition]:
    def read(texts: list[str]) -> Condition:
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=MAX_WORDS, return_tensors="pt")
        with torch.no_grad():
            return Condition(model(**tokens).last_hidden_state, tokens["attention_mask"])

    return read


def train_text_to_image(
    work: Path,
    out: Path,
    clip: CLIPModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoder: AutoencoderDC,
    pictures: Path,
    unseen: Path,
    config: OptimConfig,
    start: Path | None = None,
    pairs: float = 0.0,
) -> dict[str, float]:
    """Trains the transformer by flow matching and writes it with its scheduler in diffusers' layout.

    Args:
        work: Folder of the checkpoint; an existing one is resumed.
        out: Folder of the result.
        clip: Its text model conditions the transformer.
        tokenizer: CLIP's tokenizer.
        autoencoder: Its latents are painted.
        pictures: Picture set to train on.
        unseen: Picture set of other people, for the figures.
        config: Optimizer and schedule.
        start: Result of an earlier training to go on from; None begins anew.
        pairs: Share of draws that are whole pictures of two people; their faces are small and learned last.

    Raises:
        VisavisError: If the checkpoint in `work` is of a training that began from other weights than `start`.
    """
    begin(work, start)
    known = PictureSet.open(pictures)
    latents = encode_latents(autoencoder, known)
    of_two = whole_pairs(known)
    words = _reader(clip.text_model, tokenizer)
    torch.manual_seed(0)
    model = PixArtTransformer2DModel(**DIT, caption_channels=clip.config.text_config.hidden_size)
    if start is not None:
        model.load_state_dict(load_file(start / DENOISER_FOLDER / SAFETENSORS_WEIGHTS_NAME))

    def step_loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = draw_rows(len(known.rows), of_two, pairs, config.batch_size, rng)
        texts = [row_caption(known.rows[int(i)], rng) if rng.random() > 0.1 else "" for i in rows]
        clean = torch.from_numpy(latents[rows].astype(np.float32))
        sigma = draw_sigma(len(rows))
        error = clean_errors(model, words(texts), clean, torch.randn_like(clean), sigma)
        return (error / (sigma + MIN_SIGMA)).mean(), {"clean_latent_mse": float(error.detach().mean())}

    train(
        model, LocalTask(step_loss), config, work, log=lambda metrics, step: print(step, metrics, flush=True)
    )
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out / DENOISER_FOLDER)
    model.float()
    FlowMatchEulerDiscreteScheduler().save_pretrained(out / "scheduler")
    fresh = PictureSet.open(unseen)
    figures = measure(model, words, fresh, encode_latents(autoencoder, fresh))
    write_json(out / "figures.json", figures)
    return figures


def main() -> None:
    """Trains from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, default=Path(".work/parts"))
    parser.add_argument("--work", type=Path, help="folder of the checkpoints; default: beside the parts")
    parser.add_argument("--pictures", type=Path, default=Path(".work/pictures/train"))
    parser.add_argument("--unseen", type=Path, default=Path(".work/pictures/eval"))
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--start", type=Path, help="folder of an earlier result to go on from")
    parser.add_argument("--pairs", type=float, default=0.0, help="share of draws from whole pictures of two")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    from transformers import AutoTokenizer

    clip = CLIPModel.from_pretrained(given.parts / "clip", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(given.parts / "clip")
    autoencoder = AutoencoderDC.from_pretrained(given.parts / "vae", torch_dtype=torch.float32).eval()
    config = OptimConfig(
        steps=given.steps,
        batch_size=32,
        lr=given.lr,
        warmup=100,
        ema=given.ema,
        log_every=50,
        weight_decay=0.01,
    )
    out = given.parts / "text_to_image"
    work = given.work or given.parts.parent / out.name
    figures = train_text_to_image(
        work,
        out,
        clip,
        tokenizer,
        autoencoder,
        given.pictures,
        given.unseen,
        config,
        given.start,
        given.pairs,
    )
    print(figures)


if __name__ == "__main__":
    main()
