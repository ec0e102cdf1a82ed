"""Runs the models over the test split and hands over what evaluation scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch

from visavis.chat.conversation import USER, Message
from visavis.chat.model import ChatModel, Picture, decode_latents
from visavis.chat.talker import Request, Talker
from visavis.data.published.tokens import TokenStore
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.items import (
    FirstRoundItem,
    PromptedItem,
    ReconstructionItem,
    RetentionItem,
    RoundItem,
    SingleRoundItem,
    choose,
    clusters_of,
)
from visavis.evaluation.prompts import NAME, load_prompts
from visavis.evaluation.systems import System
from visavis.models.detokenizer import Detokenizer
from visavis.models.mllm import Mllm
from visavis.training.detokenizer import fit_tokens, predicted_tokens, source_latents
from visavis.training.mllm import answered_pictures

_PAINT_BATCH = 64
_Kind = Literal["natural", "people", "face"]
Judged = Literal["before", "after", "served"]
_OF_ONE = ("reconstruct", "inpaint", "pair")
"""Sets whose captions speak of one person, where they are of one."""
_KINDS: dict[str, _Kind] = {"natural": "natural", "rounds": "people", "inpaint": "people", "pair": "people"}


@dataclass(frozen=True)
class Painted:
    """Generated pictures of some samples: `[sample][generated image]`, and their tokens where a system has such."""

    pictures: list[list[Picture]]
    tokens: list[list[np.ndarray | None]]


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
        end = start + len(answered_pictures(sample))
        pictures.append(flat[start:end])
        tokens.append(list(said[start:end]))
        start = end
    return Painted(pictures, tokens)


def painted_by(system: System, store: TokenStore, samples: list[dict[str, Any]]) -> Painted:
    """Lets another system paint every picture of some conversations, the history given as it truly was.

    An answer without a picture counts as a black one, which shows nobody.
    """
    made: list[list[Picture]] = []
    for sample in samples:
        said: list[str] = []
        shown: list[Picture] = []
        pictures = []
        for turn in sample["turns"]:
            for part in turn["content"]:
                if part["type"] == "text":
                    said += [part["text"]] if turn["role"] == USER else []
                    continue
                true = store.pictures[sample["rows"][part["image"]]]
                if turn["role"] != USER:
                    seed = crc32(sample["id"].encode())
                    picture = system.generate("\n".join(said), shown, seed=seed)
                    pictures.append(np.zeros_like(true) if picture is None else picture)
                shown = [*shown, true]
        made.append(pictures)
    return Painted(made, [[None] * len(pictures) for pictures in made])


def descriptions(store: TokenStore) -> dict[tuple[str, str], str]:
    """Returns all that the data set says of each person of each clip, from captions that speak of that one only."""
    said: dict[tuple[str, str], set[str]] = {}
    for sample in store.samples:
        if sample["set"] in _OF_ONE and len(sample["people"]) == 1 and sample["caption"]:
            said.setdefault((sample["people"][0], sample["clip_id"]), set()).add(sample["caption"])
    return {key: "; ".join(sorted(captions)) for key, captions in said.items()}


def single_round_items(
    store: TokenStore, samples: list[dict[str, Any]], painted: Painted
) -> list[SingleRoundItem]:
    """Returns personalised pictures beside source face and target."""
    said = descriptions(store)
    return [
        SingleRoundItem(
            item_id=sample["id"],
            person_id=sample["people"][0],
            caption=sample["caption"],
            source_face=store.pictures[sample["rows"][0]],
            target=store.pictures[sample["rows"][1]],
            generated=pictures[0],
            description=said.get((sample["people"][0], sample["clip_id"]), ""),
        )
        for sample, pictures in zip(samples, painted.pictures, strict=True)
    ]


def round_items(
    store: TokenStore, samples: list[dict[str, Any]], painted: Painted
) -> tuple[list[RoundItem], list[FirstRoundItem]]:
    """Returns the close-ups of rounds 2 and 3, and the pictures of round 1; chats that share people are a cluster."""
    closeups, firsts = [], []
    said = descriptions(store)
    clusters = clusters_of([sample["people"] for sample in samples])
    made = zip(samples, painted.pictures, painted.tokens, clusters, strict=True)
    for sample, pictures, tokens, cluster in made:
        rows, tags = sample["rows"], sample["tags"]
        firsts.append(
            FirstRoundItem(sample["id"], sample["caption"], pictures[0], store.pictures[rows[0]], cluster)
        )
        for number in (1, 2):
            asked, other = rows[number], rows[3 - number]
            person = sample["people"][tags["asked_side"][number - 1] == "right"]
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
                    first_picture=store.pictures[rows[0]],
                    person_id=person,
                    description=said.get((person, sample["clip_id"]), ""),
                    generated_tokens=tokens[number],
                    asked_tokens=_beside(tokens[number], store, asked),
                    other_tokens=_beside(tokens[number], store, other),
                )
            )
    return closeups, firsts


def _beside(made: np.ndarray | None, store: TokenStore, row: int) -> np.ndarray | None:
    """Returns the tokens of a true picture, as many as were predicted."""
    if made is None:
        return None
    tokens = torch.from_numpy(store.tokens[row].astype(np.float32))[None]
    return fit_tokens(tokens, len(made))[0].numpy()


def with_other_pictures(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replaces the round-1 picture of each chat by the next chat's: what the words alone can do must be chance."""
    return [
        {**sample, "rows": [samples[(i + 1) % len(samples)]["rows"][0], *sample["rows"][1:]]}
        for i, sample in enumerate(samples)
    ]


def prompted_items(
    paint: Callable[[list[dict[str, Any]]], Painted],
    store: TokenStore,
    samples: list[dict[str, Any]],
    config: EvaluateConfig,
) -> list[PromptedItem]:
    """Paints the people of some samples with each group of prompts, one prompt of a group for each person in turn.

    Args:
        paint: Paints samples.
        store: Pictures of the samples.
        samples: Samples of the set `pair`.
        config: Whose words to take.
    """
    groups = load_prompts(config.prompt_set).groups
    asked = [
        (group, prompts[index % len(prompts)], sample)
        for group, prompts in groups.items()
        for index, sample in enumerate(samples)
    ]
    painted = paint([_with_caption(sample, prompt) for _, prompt, sample in asked])
    return [
        PromptedItem(
            item_id=f"{group}-{sample['id']}",
            group=group,
            person_id=sample["people"][0],
            prompt=prompt,
            source_face=store.pictures[sample["rows"][0]],
            generated=pictures[0],
        )
        for (group, prompt, sample), pictures in zip(asked, painted.pictures, strict=True)
    ]


def _with_caption(sample: dict[str, Any], caption: str) -> dict[str, Any]:
    """Returns the sample with another caption in the user's words, which stay otherwise."""
    turns = [
        {
            **turn,
            "content": [
                {**part, "text": part["text"].replace(sample["caption"], caption)}
                if part["type"] == "text" and turn["role"] == "user"
                else part
                for part in turn["content"]
            ],
        }
        for turn in sample["turns"]
    ]
    return {**sample, "caption": caption, "turns": turns}


def retention_items(
    model: ChatModel, store: TokenStore, samples: list[dict[str, Any]], config: EvaluateConfig
) -> list[RetentionItem]:
    """Goes on with chats from their true round 1, and asks for one of the two people in every round.

    Round 2 asks as the data set does, later rounds in other words, whose list each chat enters elsewhere, so that no
    round stands for one wording. All chats are answered together, each as a `ChatSession` would.

    Args:
        model: The model as it serves.
        store: Pictures of the samples.
        samples: Chats of the set `rounds`.
        config: The last round, and whose words to ask in.
    """
    talker, again = Talker(model), load_prompts(config.prompt_set).again
    chats = [[_message(store, sample, turn) for turn in sample["turns"][:2]] for sample in samples]
    close_ups: list[list[Picture | None]] = [[] for _ in samples]
    for number in range(config.retention_rounds - 1):
        for sample, chat in zip(samples, chats, strict=True):
            words = again[(crc32(sample["id"].encode()) + number) % len(again)]
            asked = Message(USER, (words.replace(NAME, sample["tags"]["asked_names"][0]),))
            chat.append(asked if number else _message(store, sample, sample["turns"][2]))
        answers = talker.answer([Request(chat) for chat in chats])
        for chat, shown, answer in zip(chats, close_ups, answers, strict=True):
            chat.append(answer.message)
            shown.append(answer.picture)
    clusters = clusters_of([sample["people"] for sample in samples])
    return [
        RetentionItem(
            sample["id"],
            store.pictures[sample["rows"][0]],
            sample["tags"]["asked_side"][0],
            tuple(shown),
            cluster,
        )
        for sample, shown, cluster in zip(samples, close_ups, clusters, strict=True)
    ]


def _message(store: TokenStore, sample: dict[str, Any], turn: dict[str, Any]) -> Message:
    """Returns a turn of a sample as somebody said it."""
    parts = [
        part["text"] if part["type"] == "text" else store.pictures[sample["rows"][part["image"]]]
        for part in turn["content"]
    ]
    return Message(turn["role"], tuple(parts))


@torch.no_grad()
def reconstruction_items(
    store: TokenStore,
    detokenizers: Mapping[Judged, Detokenizer],
    autoencoder: Any,
    steps: int,
    config: EvaluateConfig,
) -> list[ReconstructionItem]:
    """Sends test pictures through encoder and detokenizers; see `ReconstructionItem` for what these are called."""
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
    if detokenizers["after"].config.condition_image:
        given = torch.from_numpy(source_latents(store, rows, _KINDS, "test").astype(np.float32))
    painted: dict[str, list[Picture]] = {name: [] for name in detokenizers}
    for start in range(0, len(rows), _PAINT_BATCH):
        part = rows[start : start + _PAINT_BATCH]
        tokens = torch.from_numpy(store.tokens[part].astype(np.float32))
        for name, model in detokenizers.items():
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
            cluster_id=clusters[i],
            **{name: pictures[i] for name, pictures in painted.items()},
        )
        for i, row in enumerate(rows)
    ]
