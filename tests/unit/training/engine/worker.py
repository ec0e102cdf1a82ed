"""Small stages of chats, for one process or several; `python worker.py JOBS.json`, also under torchrun."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from visavis.chat.layout import collate, lay_out
from visavis.chat.template import RESPONSE, Template, assistant, user
from visavis.models.mllm import Mllm, MllmBatch, MllmConfig, loss_counts
from visavis.pretrain.vocabulary import build_tokenizer
from visavis.training.config import EngineConfig, OptimConfig
from visavis.training.engine import Totals, ending_at_once, train

IMAGE_TOKENS, DIM = 16, 4
SAYING = "two friends, Julian and Olivia on the left"


def build() -> tuple[Mllm, Template]:
    torch.manual_seed(3)
    tokenizer = build_tokenizer([RESPONSE, SAYING], IMAGE_TOKENS)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    connect = MllmConfig(
        token_dim=DIM,
        image_tokens=IMAGE_TOKENS,
        input_connector="pool",
        output_connector="linear",
        token_shift=1,
        view_positions=True,
    )
    return Mllm(LlamaForCausalLM(shape), connect), Template(tokenizer, IMAGE_TOKENS)


class Chats:
    """Chats of words, of one picture and of two; an item is a seed."""

    def __init__(self, template: Template, batch_size: int, term_at: int | None = None) -> None:
        self.template, self.batch_size, self.term_at = template, batch_size, term_at

    def draw(self, step: int, rng: np.random.Generator) -> Sequence[int]:
        if step == self.term_at:
            os.kill(os.getpid(), 15)
        return [int(seed) for seed in rng.integers(2**31, size=self.batch_size)]

    def collate(self, items: Sequence[int]) -> MllmBatch:
        layouts, pictures = [], []
        for seed in items:
            rng, rounds = np.random.default_rng(seed), seed % 3
            turns = [user(SAYING), assistant(RESPONSE, *range(min(rounds, 1)))]
            if rounds == 2:
                turns += [user(SAYING), assistant(RESPONSE, 1)]
            layouts.append(lay_out(self.template.segments(turns), self.template))
            pictures.append([rng.normal(size=(IMAGE_TOKENS, DIM)).astype(np.float32) for _ in range(rounds)])
        if not any(pictures):
            pictures[0] = [np.zeros((IMAGE_TOKENS, DIM), np.float32)]
        weights = [[1.0] * len(group) for group in pictures]
        return collate(layouts, pictures, IMAGE_TOKENS, weights)

    def counts(self, batch: MllmBatch) -> Totals:
        return loss_counts(batch, IMAGE_TOKENS)

    def loss(self, model: nn.Module, batch: MllmBatch, totals: Totals) -> tuple[Tensor, dict[str, float]]:
        loss = model(batch, totals)
        return loss.total, {"text_loss": float(loss.text), "image_loss": float(loss.image)}


def run(job: dict[str, Any]) -> list[float]:
    """Trains as a job says; returns the loss of each step that this call did, on the first process."""
    torch.set_num_threads(1)
    model, template = build()
    if "freeze" in job:
        model.get_submodule(job["freeze"]).requires_grad_(False)
    task = Chats(template, 6, job.get("term_at"))
    config = OptimConfig(
        lr=3e-3, warmup=2, batch_size=6, log_every=1, checkpoint_seconds=1e-9, **job.get("config", {})
    )
    curve: list[float] = []
    engine = EngineConfig(**job.get("engine", {}))
    train(model, task, config, Path(job["work"]), lambda m, step: curve.append(m["loss"]), None, engine)
    assert all(value.numel() for value in model.state_dict().values()), "no weight is left in pieces"
    weights = {
        name: value.tolist() for name, value in model.state_dict().items() if "layers.1.mlp.up" in name
    }
    return [curve, weights]


if __name__ == "__main__":
    with ending_at_once():
        jobs = json.loads(Path(sys.argv[1]).read_text())
        results = [run(job) for job in jobs]
        if os.environ.get("RANK", "0") == "0":
            Path(sys.argv[1]).with_name("results.json").write_text(json.dumps(results))
