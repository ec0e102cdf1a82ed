"""Runs the models over the test split and hands over what evaluation scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from visavis.chat.model import ChatModel, Picture, decode_latents
from visavis.data.published.tokens import TokenStore
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.items import (
    FirstRoundItem,
    ReconstructionItem,
    RoundItem,
    SingleRoundItem,
    choose,
    clusters_of,
)
from visavis.models.detokenizer import Detokenizer
from visavis.models.mllm import Mllm
from visavis.training.detokenizer import fit_tokens, predicted_tokens, source_latents

_PAINT_BATCH = 64
_Kind = Literal["natural", "people", "face"]
_KINDS: dict[str, _Kind] = {"natural": "natural", "rounds": "people", "inpaint": "people", "pair": "people"}


@dataclass(frozen=True)
class Painted:
    """Generated pictures of some samples: `[sample][generated image]`, and their tokens."""

    pictures: list[list[Picture]]
    tokens: list[list[np.ndarray]]


def _sample_key(sample: dict[str, Any]) -> str:
    return str(sample["id"])


def chosen(store: TokenStore, name: str, most: int, seed: int) -> list[dict[str, Any]]:
    """Returns at most `most` test samples of a set, the same ones for every model."""
    return choose(store.select([name], "test"), most, seed=seed, key=_sample_key)


def paint(model: ChatModel, mllm: Mllm, store: TokenStore, samples: list[dict[str, Any]]) -> Painted:
    """Generates every picture of some conversations in one pass, the history given as it truly was."""
    if not samples:
        return Painted([], [])
    said, _ = predicted_tokens(mllm, model.template, store, samples)
    flat: list[Picture] = []
    for start in range(0, len(said), _PAINT_BATCH):
        flat += model.paint(said[start : start + _PAINT_BATCH])
    pictures, tokens, start = [], [], 0
    for sample in samples:
        end = start + answered_pictures(sample)
        pictures.append(flat[start:end])
        tokens.append(list(said[start:end]))
        start = end
    return Painted(pictures, tokens)


def answered_pictures(sample: dict[str, Any]) -> int:
    """Returns how many pictures the assistant shows in a conversation."""
    parts = [part for turn in sample["turns"] if turn["role"] == "assistant" for part in turn["content"]]
    return sum(part["type"] == "image" for part in parts)


def single_round_items(
    store: TokenStore, samples: list[dict[str, Any]], painted: Painted
) -> list[SingleRoundItem]:
    """Returns personalised pictures beside source face and target."""
    return [
        SingleRoundItem(
            item_id=sample["id"],
            person_id=sample["people"][0],
            caption=sample["caption"],
            source_face=store.pictures[sample["rows"][0]],
            target=store.pictures[sample["rows"][1]],
            generated=pictures[0],
        )
        for sample, pictures in zip(samples, painted.pictures, strict=True)
    ]


def round_items(
    store: TokenStore, samples: list[dict[str, Any]], painted: Painted
) -> tuple[list[RoundItem], list[FirstRoundItem]]:
    """Returns the close-ups of rounds 2 and 3, and the pictures of round 1; chats that share people are a cluster."""
    closeups, firsts = [], []
    clusters = clusters_of([sample["people"] for sample in samples])
    made = zip(samples, painted.pictures, painted.tokens, clusters, strict=True)
    for sample, pictures, tokens, cluster in made:
        rows, tags = sample["rows"], sample["tags"]
        firsts.append(
            FirstRoundItem(sample["id"], sample["caption"], pictures[0], store.pictures[rows[0]], cluster)
        )
        for number in (1, 2):
            asked, other = rows[number], rows[3 - number]
            closeups.append(
                RoundItem(
                    chat_id=sample["id"],
                    round=number + 1,
                    generated=pictures[number],
                    asked_true=store.pictures[asked],
                    other_true=store.pictures[other],
                    described=tags["described"][number - 1],
                    asked_side=tags["asked_side"][number - 1],
                    left_first=tags["order_left_first"],
                    cluster_id=cluster,
                    side_told=tags["side_told"][number - 1],
                    other_described=tags["other_described"][number - 1],
                    generated_tokens=tokens[number],
                    asked_tokens=_pooled(store, asked, len(tokens[number])),
                    other_tokens=_pooled(store, other, len(tokens[number])),
                )
            )
    return closeups, firsts


def _pooled(store: TokenStore, row: int, wanted: int) -> np.ndarray:
    tokens = torch.from_numpy(store.tokens[row].astype(np.float32))[None]
    return fit_tokens(tokens, wanted)[0].numpy()


def with_other_pictures(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replaces the round-1 picture of each chat by the next chat's: what the words alone can do must be chance."""
    return [
        {**sample, "rows": [samples[(i + 1) % len(samples)]["rows"][0], *sample["rows"][1:]]}
        for i, sample in enumerate(samples)
    ]


@torch.no_grad()
def reconstruction_items(
    store: TokenStore,
    before: Detokenizer,
    after: Detokenizer,
    autoencoder: Any,
    steps: int,
    config: EvaluateConfig,
) -> list[ReconstructionItem]:
    """Sends test pictures through encoder and detokenizer, before and after tuning on people."""
    uses: dict[int, tuple[_Kind, list[str]]] = {}
    for sample in store.select(_KINDS, "test"):
        for number, row in enumerate(sample["rows"]):
            is_face = (sample["set"] == "rounds" and number) or (
                sample["set"] in ("inpaint", "pair") and not number
            )
            kind = "face" if is_face else _KINDS[sample["set"]]
            _, shared = uses.setdefault(row, (kind, [sample["clip_id"] or sample["id"]]))
            shared += sample["people"]
    rows = choose(sorted(uses), config.max_reconstruction, seed=config.seed, key=str)
    clusters = clusters_of([uses[row][1] for row in rows])
    given: torch.Tensor | None = None
    if after.config.condition_image:
        given = torch.from_numpy(source_latents(store, rows, _KINDS, "test").astype(np.float32))
    painted: dict[str, list[Picture]] = {"before": [], "after": []}
    for start in range(0, len(rows), _PAINT_BATCH):
        part = rows[start : start + _PAINT_BATCH]
        tokens = torch.from_numpy(store.tokens[part].astype(np.float32))
        for name, model in (("before", before), ("after", after)):
            read = fit_tokens(tokens, model.config.image_tokens)
            sources = None if given is None else given[start : start + _PAINT_BATCH]
            painted[name] += list(
                decode_latents(autoencoder, model.eval().sample(read, steps, sources=sources))
            )
    return [
        ReconstructionItem(
            str(row),
            uses[row][0],
            store.pictures[row],
            painted["after"][i],
            painted["before"][i],
            clusters[i],
        )
        for i, row in enumerate(rows)
    ]
