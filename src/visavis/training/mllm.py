"""Tuning of the MLLM: the three stages of the paper and the multi-round chats, all the same loop over other sets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from torch import Tensor, nn

from visavis.chat.layout import collate, lay_out
from visavis.chat.template import KEEP_IDENTICAL, KEPT, Template, Turn
from visavis.data.published.order import Order
from visavis.data.published.tokens import TokenStore
from visavis.errors import VisavisError
from visavis.models.mllm import Mllm, MllmBatch, loss_counts
from visavis.training.config import EngineConfig, StageConfig
from visavis.training.engine import Log, Totals, train
from visavis.training.engine.task import TOKENS
from visavis.training.packing import TOO_LONG, fitting, linear_length_of, quickest_rows


def conversation_batch(
    samples: Sequence[dict[str, Any]],
    store: TokenStore,
    template: Template,
    later_weight: float = 1.0,
    packed: Callable[[list[int]], list[list[int]]] | None = None,
) -> MllmBatch:
    """Lays out conversations for one pass over all their rounds.

    Args:
        samples: Rows of a `TokenStore`.
        store: Holds their image tokens.
        template: Renders turns.
        later_weight: Regression weight of the pictures that follow the first generated one.
        packed: Maps the chats' lengths to the chats of each row; None: a row for each, in their order.
    """
    layouts = [lay_out(template.segments(sample["turns"]), template) for sample in samples]
    pictures = [[store.tokens[row] for row in sample["rows"]] for sample in samples]
    weights = [_weights(sample, later_weight) for sample in samples]
    rows = packed([len(layout) for layout in layouts]) if packed else None
    return collate(layouts, pictures, len(template.queries), weights, rows)


def answered_pictures(sample: dict[str, Any]) -> list[int]:
    """Returns the number of each picture that the assistant shows in a conversation, in order."""
    return [
        part["image"]
        for turn in sample["turns"]
        if turn["role"] == "assistant"
        for part in turn["content"]
        if part["type"] == "image"
    ]


def _weights(sample: dict[str, Any], later: float) -> list[float]:
    weights = [1.0] * len(sample["rows"])
    for picture in answered_pictures(sample)[1:]:
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


def with_plan(sample: dict[str, Any], share: float) -> dict[str, Any]:
    """Lets the first reply of a chat say who stands where, for a share of the chats that have such a plan.

    Words that leave it open make a regression paint both people as the mean of both; a model that first says it,
    paints what it said. The other chats stay, for who is who must be told from the picture as well.
    """
    if crc32(sample["id"].encode()) >= share * 2**32:
        return sample
    words = sample["tags"].get("plan")
    if not words:
        return sample
    turns = copy.deepcopy(sample["turns"])
    reply = next(turn for turn in turns if turn["role"] == "assistant")
    next(part for part in reply["content"] if part["type"] == "text")["text"] = words
    return {**sample, "turns": turns}


def tune(
    model: Mllm,
    template: Template,
    store: TokenStore,
    config: StageConfig,
    work: Path,
    log: Log | None = None,
    progress: Callable[[int, int], None] | None = None,
    engine: EngineConfig | None = None,
) -> dict[str, float]:
    """Tunes the model in place on the train split of the configured sets.

    Returns:
        The last logged metrics, and the number of chats that are left out as `too_long`.

    Raises:
        VisavisError: If a set has no training sample.
    """
    task, dropped = chat_task(model, template, store, config)
    metrics = train(model, task, config, work, log, progress, engine)
    return {**metrics, TOO_LONG: float(dropped)}


def chat_task(
    model: Mllm, template: Template, store: TokenStore, config: StageConfig
) -> tuple[ChatTask, int]:
    """Returns the task of a stage, and the number of its chats that are too long for a row.

    Raises:
        VisavisError: If a set has no training sample that fits.
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
    pools = {name: [with_plan(s, config.plan_share) for s in pool] for name, pool in pools.items()}
    found = {name: fitting(pool, template, config.max_length) for name, pool in pools.items()}
    for name, (kept, dropped) in found.items():
        if dropped and not kept and config.steps:
            raise VisavisError(
                f"all {dropped} training samples of set {name!r} have more than max_length={config.max_length} tokens",
                fix="raise max_length of the stage, or leave the set out of `sets`",
            )
    whole = {name: kept for name, (kept, _) in found.items()}
    task = ChatTask(store, template, config, whole, linear_length_of(model.llm.config))
    return task, sum(dropped for _, dropped in found.values())


@dataclass
class ChatTask:
    """Chats drawn from sets by share, packed into rows; an item is a sample of the store.

    Attributes:
        store: Holds the tokens of the pictures.
        template: Renders turns.
        config: Batch size, shares of the sets, longest row and the weight of later pictures.
        pools: Set name -> its training samples, none longer than a row.
        linear_length: Row length at which the model's attention costs as much as its linear maps.
    """

    store: TokenStore
    template: Template
    config: StageConfig
    pools: dict[str, list[dict[str, Any]]]
    linear_length: float

    @cached_property
    def order(self) -> Order:
        """Which samples each step takes."""
        sizes = {name: len(pool) for name, pool in self.pools.items()}
        return Order(sizes, self.config.sets, self.config.batch_size, self.config.seed)

    def draw(self, step: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Returns `batch_size` samples; what the step after it reads is fetched meanwhile."""
        self.store.prefetch(row for sample in self._samples(step + 1) for row in sample["rows"])
        return self._samples(step)

    def _samples(self, step: int) -> list[dict[str, Any]]:
        return [self.pools[name][number] for name, number in self.order.items(step)]

    def collate(self, items: Sequence[dict[str, Any]]) -> MllmBatch:
        """Lays the samples out."""
        return conversation_batch(
            items, self.store, self.template, self.config.later_round_weight, self._rows
        )

    def _rows(self, lengths: list[int]) -> list[list[int]]:
        return quickest_rows(lengths, self.config.max_length, self.linear_length)

    def counts(self, batch: MllmBatch) -> Totals:
        """Returns the number of supervised words, the summed weights of generated pictures, and the tokens."""
        tokens = float(
            (batch.previous >= 0).sum()
        )  # all but the first of each chat; padding has no predecessor
        return {**loss_counts(batch, len(self.template.queries)), TOKENS: tokens}

    def loss(self, model: nn.Module, batch: MllmBatch, totals: Totals) -> tuple[Tensor, dict[str, float]]:
        """Returns the weighted sum of text and image loss."""
        loss = model(batch, totals)
        return loss.total, {"text_loss": float(loss.text), "image_loss": float(loss.image)}
