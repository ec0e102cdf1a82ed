"""Tuning of the MLLM: the three stages of the paper and the multi-round chats, all the same loop over other sets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from visavis.chat.layout import collate, lay_out
from visavis.chat.template import KEEP_IDENTICAL, KEPT, Template, Turn
from visavis.data.published.tokens import TokenStore
from visavis.errors import VisavisError
from visavis.models.mllm import Mllm, MllmBatch, loss_counts
from visavis.training.config import StageConfig
from visavis.training.engine import Log, Totals, train


def conversation_batch(
    samples: list[dict[str, Any]], store: TokenStore, template: Template, later_weight: float = 1.0
) -> MllmBatch:
    """Lays out conversations for one pass over all their rounds.

    Args:
        samples: Rows of a `TokenStore`.
        store: Holds their image tokens.
        template: Renders turns.
        later_weight: Regression weight of the pictures that follow the first generated one.
    """
    layouts = [lay_out(template.segments(sample["turns"]), template) for sample in samples]
    pictures = [[store.tokens[row] for row in sample["rows"]] for sample in samples]
    weights = [_weights(sample, later_weight) for sample in samples]
    return collate(layouts, pictures, len(template.queries), weights)


def _weights(sample: dict[str, Any], later: float) -> list[float]:
    weights = [1.0] * len(sample["rows"])
    generated = [
        part["image"]
        for turn in sample["turns"]
        if turn["role"] == "assistant"
        for part in turn["content"]
        if part["type"] == "image"
    ]
    for picture in generated[1:]:
        weights[picture] = later
    return weights


def with_keep_identical(turns: list[Turn]) -> list[Turn]:
    """Adds the paper's sentences on keeping the face to every turn of a conversation."""
    edited = copy.deepcopy(turns)
    for turn in edited:
        sentence = KEEP_IDENTICAL if turn["role"] == "user" else KEPT
        texts = [part for part in turn["content"] if part["type"] == "text"]
        texts[-1]["text"] = f"{texts[-1]['text'].rstrip('.')}. {sentence}"
    return edited


def tune(
    model: Mllm,
    template: Template,
    store: TokenStore,
    config: StageConfig,
    work: Path,
    log: Log | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Tunes the model in place on the train split of the configured sets.

    Returns:
        The last logged metrics.

    Raises:
        VisavisError: If a set has no training sample.
    """
    pools = {name: store.select([name], "train") for name in config.sets}
    for name, pool in pools.items():
        if not pool and config.steps:
            raise VisavisError(
                f"set {name!r} has no training sample", fix="give more clips, or leave the set out of `sets`"
            )
    if config.keep_identical_text:
        pools = {
            name: [{**s, "turns": with_keep_identical(s["turns"])} for s in pool]
            for name, pool in pools.items()
        }
    names = list(pools)
    shares = np.asarray([config.sets[name] for name in names], dtype=float)
    task = ChatTask(store, template, config, pools, shares / shares.sum())
    return train(model, task, config, work, log, progress)


@dataclass
class ChatTask:
    """Chats drawn from sets by share; an item is a sample of the store.

    Attributes:
        store: Holds the tokens of the pictures.
        template: Renders turns.
        config: Batch size and the weight of later pictures.
        pools: Set name -> its training samples.
        shares: Probability of each pool, in their order.
    """

    store: TokenStore
    template: Template
    config: StageConfig
    pools: dict[str, list[dict[str, Any]]]
    shares: NDArray[np.float64]

    def draw(self, step: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Returns `batch_size` samples."""
        samples = []
        for name in rng.choice(list(self.pools), self.config.batch_size, p=self.shares):
            pool = self.pools[str(name)]
            samples.append(pool[int(rng.integers(len(pool)))])
        return samples

    def collate(self, items: Sequence[dict[str, Any]]) -> MllmBatch:
        """Lays the samples out."""
        return conversation_batch(list(items), self.store, self.template, self.config.later_round_weight)

    def counts(self, batch: MllmBatch) -> Totals:
        """Returns the number of supervised words and the summed weights of generated pictures."""
        return loss_counts(batch, len(self.template.queries))

    def loss(self, model: nn.Module, batch: MllmBatch, totals: Totals) -> tuple[Tensor, dict[str, float]]:
        """Returns the weighted sum of text and image loss."""
        loss = model(batch, totals)
        return loss.total, {"text_loss": float(loss.text), "image_loss": float(loss.image)}
