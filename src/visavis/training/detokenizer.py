"""Tuning of the detokenizer: reconstruct natural pictures, then people, then what the MLLM really says.

Source: the paper, section 3.1; the last stage follows SEED-Story's adaptation of its detokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from visavis.chat.template import Template
from visavis.data.published.tokens import TokenStore
from visavis.errors import VisavisError
from visavis.models.detokenizer import Detokenizer, draw_sigma
from visavis.models.image_encoder import pool_tokens
from visavis.models.mllm import Mllm
from visavis.training.config import OptimConfig
from visavis.training.engine import Log, Totals, train
from visavis.training.mllm import conversation_batch

Progress = Callable[[int, int], None]
_PREDICT_BATCH = 16


def fit_tokens(tokens: Tensor, wanted: int) -> Tensor:
    """Returns tokens `[B, wanted, d]`, pooled if they are not yet."""
    return tokens if tokens.shape[1] == wanted else pool_tokens(tokens)


def reconstruct(
    detokenizer: Detokenizer,
    tokens: NDArray[np.float16],
    latents: NDArray[np.float16],
    config: OptimConfig,
    work: Path,
    log: Log | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Tunes the detokenizer in place to paint latents from tokens.

    Args:
        detokenizer: Trained as a whole (connector and denoiser).
        tokens: `[M, T, d]`, from the encoder or predicted by an MLLM.
        latents: `[M, C, h, w]`, the row of each.
        config: Optimizer and schedule.
        work: Folder of the checkpoint.
        log: Receives metrics by step.
        progress: Receives (steps done, steps in all).

    Raises:
        VisavisError: If there are no tokens to learn from.
    """
    if not len(tokens) and config.steps:
        raise VisavisError(
            "there is no picture to tune the detokenizer on",
            fix="put natural pictures into `pictures/` beside the clips, or give the stage 0 steps",
        )
    if not config.steps:
        return {}
    task = PaintTask(tokens, latents, config, detokenizer.config.image_tokens)
    return train(detokenizer, task, config, work, log, progress)


@dataclass
class PaintTask:
    """Pictures to paint from their tokens; an item is a row of the arrays and the seed of its noise.

    Attributes:
        tokens: `[M, T, d]`.
        latents: `[M, C, h, w]`.
        config: Batch size.
        image_tokens: Tokens that the detokenizer reads.
    """

    tokens: NDArray[np.float16]
    latents: NDArray[np.float16]
    config: OptimConfig
    image_tokens: int

    def draw(self, step: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Returns (row, seed) of `batch_size` pictures."""
        rows = np.sort(rng.integers(len(self.tokens), size=self.config.batch_size))
        seeds = rng.integers(2**63, size=self.config.batch_size)
        return [(int(row), int(seed)) for row, seed in zip(rows, seeds, strict=True)]

    def collate(self, items: Sequence[tuple[int, int]]) -> PaintBatch:
        """Reads the rows and draws noise and noise level of each from its seed."""
        rows = [row for row, _ in items]
        clean = torch.from_numpy(self.latents[rows].astype(np.float32))
        noise, sigma = torch.empty_like(clean), torch.empty(len(items))
        for number, (_, seed) in enumerate(items):
            generator = torch.Generator().manual_seed(seed)
            sigma[number] = draw_sigma(1, generator)[0]
            noise[number] = torch.randn(clean.shape[1:], generator=generator)
        read = torch.from_numpy(self.tokens[rows].astype(np.float32))
        return PaintBatch(fit_tokens(read, self.image_tokens), clean, noise, sigma)

    def counts(self, batch: PaintBatch) -> Totals:
        """Returns the number of pictures."""
        return {"pictures": float(len(batch.sigma))}

    def loss(self, model: nn.Module, batch: PaintBatch, totals: Totals) -> tuple[Tensor, dict[str, float]]:
        """Returns the summed loss of the pictures over their number in the step."""
        losses = model(batch.tokens, batch.latents, batch.noise, batch.sigma)
        return losses.sum() / totals["pictures"], {}


@dataclass(frozen=True)
class PaintBatch:
    """Tokens `[B, N, d]`, clean latents and noise `[B, C, h, w]`, noise levels `[B]`."""

    tokens: Tensor
    latents: Tensor
    noise: Tensor
    sigma: Tensor


@torch.no_grad()
def predicted_tokens(
    model: Mllm, template: Template, store: TokenStore, samples: list[dict], progress: Progress | None = None
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Runs the MLLM over conversations and collects what it says in place of each generated picture.

    Returns:
        Tokens float16 `[M, image_tokens, d]` and the array row of the true picture of each.
    """
    tokens, rows = [], []
    for start in range(0, len(samples), _PREDICT_BATCH):
        part = samples[start : start + _PREDICT_BATCH]
        batch = conversation_batch(part, store, template)
        predicted = model.predict_images(model.hidden_states(batch), batch.write)
        tokens.append(predicted.half().numpy())
        for sample in part:
            for turn in sample["turns"]:
                if turn["role"] == "assistant":
                    rows += [sample["rows"][p["image"]] for p in turn["content"] if p["type"] == "image"]
        if progress:
            progress(min(start + _PREDICT_BATCH, len(samples)), len(samples))
    return np.concatenate(tokens), np.asarray(rows, dtype=np.int64)
