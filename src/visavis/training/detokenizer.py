"""Tuning of the detokenizer: reconstruct natural pictures, then people, then what the MLLM really says.

Source: the paper, section 3.1; the last stage follows SEED-Story's adaptation of its detokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from visavis.chat.template import Template
from visavis.data.published.tokens import TokenStore
from visavis.errors import VisavisError
from visavis.models.detokenizer import Detokenizer, DetokenizerConfig, draw_sigma
from visavis.models.device import device_of, moved
from visavis.models.image_encoder import pool_tokens
from visavis.models.mllm import Mllm
from visavis.training.config import EngineConfig, OptimConfig
from visavis.training.engine import Log, Totals, train
from visavis.training.engine.callbacks import Callback
from visavis.training.mllm import answered_pictures, conversation_batch

Progress = Callable[[int, int], None]
_PREDICT_BATCH = 16


def fit_tokens(tokens: Tensor, wanted: int) -> Tensor:
    """Returns tokens `[B, wanted, d]`, pooled if they are not yet.

    Raises:
        VisavisError: If they are pooled and may not be.
    """
    if tokens.shape[1] < wanted:
        raise VisavisError(
            f"detokenizer.image_tokens is {wanted}, but {tokens.shape[1]} tokens of a picture are stored",
            fix="set encode.pooled=false, or detokenizer.image_tokens=64",
        )
    return tokens if tokens.shape[1] == wanted else pool_tokens(tokens)


def sources_of(samples: Iterable[dict[str, Any]]) -> dict[int, int]:
    """Returns, for the row of each generated picture, that of the first picture of its chat: a condition image.

    A picture that opens a chat, or is asked to be repeated, has none.
    """
    found: dict[int, int] = {}
    for sample in samples:
        parts = [(turn["role"], part) for turn in sample["turns"] for part in turn["content"]]
        shown = [(role, sample["rows"][part["image"]]) for role, part in parts if part["type"] == "image"]
        for role, row in shown[1:]:
            if role == "assistant" and row != shown[0][1]:
                found.setdefault(row, shown[0][1])
    return found


def source_latents(
    store: TokenStore, rows: Iterable[int], sets: Iterable[str], split: str
) -> NDArray[np.float16]:
    """Returns the latents `[M, C, h, w]` of the condition image of each row of some sets; zeros where there is none."""
    sources = sources_of(store.select(sets, split))
    wanted = np.asarray([sources.get(int(row), -1) for row in rows])
    latents: NDArray[np.float16] = np.array(store.latents[np.maximum(wanted, 0)])
    latents[wanted < 0] = 0
    return latents


def reconstruct(
    detokenizer: Detokenizer,
    tokens: NDArray[np.float16],
    latents: NDArray[np.float16],
    config: OptimConfig,
    work: Path,
    log: Log | None = None,
    progress: Progress | None = None,
    engine: EngineConfig | None = None,
    sources: NDArray[np.float16] | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, float]:
    """Tunes the detokenizer in place to paint latents from tokens.

    Args:
        detokenizer: Trained as a whole (connector and denoiser).
        tokens: `[M, T, d]`, from the encoder or predicted by an MLLM.
        latents: `[M, C, h, w]`, the row of each.
        config: Optimizer and schedule.
        work: Folder of the checkpoints.
        log: Receives metrics by step.
        progress: Receives (steps done, steps in all).
        engine: How it is run.
        sources: `[M, C, h, w]`, latents of condition images, for a detokenizer that takes them.
        callbacks: Look on.

    Raises:
        VisavisError: If there are no tokens to learn from, or fewer of them a picture than the detokenizer reads.
    """
    if not config.steps:
        return {}
    if not len(tokens):
        raise VisavisError(
            "there is no picture to tune the detokenizer on",
            fix="put natural pictures into `pictures/` beside the clips, or give the stage 0 steps",
        )
    task = PaintTask(tokens, latents, config, detokenizer.config, sources)
    return train(detokenizer, task, config, work, log, progress, engine, callbacks)


@dataclass
class PaintTask:
    """Pictures to paint from their tokens; an item is a row of the arrays and the seed of all that is random about it.

    Attributes:
        tokens: `[M, T, d]`.
        latents: `[M, C, h, w]`.
        config: Batch size.
        shape: Of the detokenizer: tokens that it reads, objective, condition dropout.
        sources: `[M, C, h, w]`, latents of condition images, or None.
    """

    tokens: NDArray[np.float16]
    latents: NDArray[np.float16]
    config: OptimConfig
    shape: DetokenizerConfig
    sources: NDArray[np.float16] | None = None

    def draw(self, step: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Returns (row, seed) of `batch_size` pictures."""
        rows = np.sort(rng.integers(len(self.tokens), size=self.config.batch_size))
        seeds = rng.integers(2**63, size=self.config.batch_size)
        return [(int(row), int(seed)) for row, seed in zip(rows, seeds, strict=True)]

    def collate(self, items: Sequence[tuple[int, int]]) -> PaintBatch:
        """Reads the rows and draws noise, noise level and whether to drop the tokens of each from its seed."""
        rows = [row for row, _ in items]
        clean = torch.from_numpy(self.latents[rows].astype(np.float32))
        noise, level = torch.empty_like(clean), torch.empty(len(items))
        dropped = torch.zeros(len(items), dtype=torch.bool)
        for number, (_, seed) in enumerate(items):
            generator = torch.Generator().manual_seed(seed)
            if self.shape.objective == "flow":
                level[number] = draw_sigma(1, generator, self.shape.shift)[0]
            else:
                level[number] = torch.rand(1, generator=generator)[0]
            noise[number] = torch.randn(clean.shape[1:], generator=generator)
            dropped[number] = torch.rand(1, generator=generator)[0] < self.shape.condition_dropout
        read = fit_tokens(torch.from_numpy(self.tokens[rows].astype(np.float32)), self.shape.image_tokens)
        given = None
        if self.shape.condition_image and self.sources is not None:
            given = torch.from_numpy(self.sources[rows].astype(np.float32))
        return PaintBatch(read, clean, noise, level, dropped, given)

    def counts(self, batch: PaintBatch) -> Totals:
        """Returns the number of pictures."""
        return {"pictures": float(len(batch.level))}

    def loss(self, model: nn.Module, batch: PaintBatch, totals: Totals) -> tuple[Tensor, dict[str, float]]:
        """Returns the summed loss of the pictures over their number in the step."""
        losses = model(batch.tokens, batch.latents, batch.noise, batch.level, batch.dropped, batch.sources)
        return losses.sum() / totals["pictures"], {}


@dataclass(frozen=True)
class PaintBatch:
    """Tokens `[B, N, d]`; clean latents, noise and condition images `[B, C, h, w]`; levels and `dropped` `[B]`."""

    tokens: Tensor
    latents: Tensor
    noise: Tensor
    level: Tensor
    dropped: Tensor
    sources: Tensor | None


def kinds_of_answers(samples: Iterable[dict[str, Any]]) -> list[str]:
    """Returns for each picture that `predicted_tokens` predicts its set, and whether it is the first of its chat."""
    return [
        f"{sample['set']}, {'later' if number else 'first'}"
        for sample in samples
        for number, _ in enumerate(answered_pictures(sample))
    ]


def balanced(kinds: Sequence[str]) -> NDArray[np.int64]:
    """Returns the places of the items, those of rarer kinds several times, so that every kind is drawn as often."""
    places: dict[str, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    most = max(map(len, places.values()), default=0)
    repeated = [np.resize(np.asarray(of_kind), most) for of_kind in places.values()]
    return np.concatenate(repeated) if repeated else np.zeros(0, np.int64)


@torch.no_grad()
def predicted_tokens(
    model: Mllm, template: Template, store: TokenStore, samples: list[dict], progress: Progress | None = None
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Runs the MLLM over conversations and collects what it says in place of each generated picture.

    Returns:
        Tokens float16 `[M, image_tokens, d]` and the array row of the true picture of each.

    Raises:
        VisavisError: If there are no conversations.
    """
    if not samples:
        raise VisavisError(
            "there is no conversation to predict pictures of",
            fix="give more clips, so that chats can be built",
        )
    said: dict[int, NDArray[np.float16]] = {}
    # Chats of about one length share a batch: the shorter ones of a batch are padded to its longest.
    order = sorted(range(len(samples)), key=lambda place: len(samples[place]["turns"]))
    for start in range(0, len(order), _PREDICT_BATCH):
        places = order[start : start + _PREDICT_BATCH]
        batch = conversation_batch([samples[place] for place in places], store, template)
        batch = moved(batch, device_of(model))
        predicted = model.predict_images(model.hidden_states(batch), batch.write).half().cpu().numpy()
        ends = np.cumsum([len(answered_pictures(samples[place])) for place in places])
        said |= zip(places, np.split(predicted, ends[:-1]), strict=True)
        if progress:
            progress(start + len(places), len(order))
    rows = [sample["rows"][picture] for sample in samples for picture in answered_pictures(sample)]
    return np.concatenate([said[place] for place in range(len(samples))]), np.asarray(rows, dtype=np.int64)
