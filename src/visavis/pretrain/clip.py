"""The pack's CLIP: pictures and captions of the storybook world, contrasted.

It scores alignment in evaluation, and its words condition the text-to-image transformer. Both towers learn together
first; then the words stay as they are and the pictures go on learning, so that whatever was built on the words stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerBase

from visavis.files import atomic_dir, write_json
from visavis.models.pixels import to_tensor
from visavis.packs.saving import save_half
from visavis.pretrain.local_task import LocalTask
from visavis.pretrain.mllm import all_texts
from visavis.pretrain.pictures import PictureSet, Row
from visavis.pretrain.timed import one_cycle, timed_steps
from visavis.pretrain.vocabulary import build_tokenizer
from visavis.storybook.captions import NAMES
from visavis.training.config import OptimConfig
from visavis.training.engine import train

MAX_WORDS = 48
_AMONG = 64
_CUT_OUTS = ("closeup", "portrait")
_CUT_OUT_SHARE = 0.25
_COMPLETE_SHARE = 0.5
_PICTURES_RATE = 8e-4
_TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
_VISION: dict[str, Any] = {**_TEXT, "num_hidden_layers": 4, "image_size": 64, "patch_size": 8}


def row_caption(row: Row, rng: np.random.Generator, complete: bool = False) -> str:
    """Writes a caption for one row of a picture set, people in random order.

    Args:
        row: Row of a `PictureSet`.
        rng: The only source of chance.
        complete: Tell all that is known; otherwise things are left out at random.
    """
    named = rng.random() < 0.4
    clauses = []
    for person in row["people"]:
        who = NAMES[int(rng.integers(len(NAMES)))] if named else "a person"
        looks = [look for look in person["looks"] if complete or rng.random() < 0.8] or person["looks"][:1]
        clause = f"{who} with {' and '.join(looks)}"
        if row["kind"] != "closeup" and (complete or rng.random() < 0.4):
            clause += f" in {person['clothes']}"
        if len(row["people"]) > 1 and rng.random() < 0.15:
            clause += f" on the {person['side']}"
        clauses.append(clause)
    text = " and ".join(clauses[int(i)] for i in rng.permutation(len(clauses)))
    if row["kind"] == "closeup":
        return f"a close-up photo of {text}"
    place = row["place"] if complete or not text or rng.random() < 0.9 else ""
    return ", ".join(part for part in (f"a photo of {text}" if text else "", place) if part)


def embed(
    model: CLIPModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], pictures: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns unit embeddings of captions and of pictures in [-1, 1], both `[B, projection]`."""
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=MAX_WORDS, return_tensors="pt")
    words = model.text_projection(model.text_model(**tokens).pooler_output)
    seen = model.visual_projection(model.vision_model(pictures).pooler_output)
    return words / words.norm(dim=1, keepdim=True), seen / seen.norm(dim=1, keepdim=True)


def build_clip() -> tuple[CLIPModel, PreTrainedTokenizerBase]:
    """Builds the untrained model and its tokenizer, which ends every caption with EOS, where CLIP pools."""
    tokenizer = build_tokenizer(all_texts(), 0, end=True)
    torch.manual_seed(0)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**_TEXT, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": MAX_WORDS}
    text["pad_token_id"] = tokenizer.pad_token_id
    return CLIPModel(CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=128)), tokenizer


def image_processor() -> CLIPImageProcessor:
    """Returns the preprocessing of pictures: 64 px, values in [-1, 1]."""
    side = _VISION["image_size"]
    crop = {"height": side, "width": side}
    half = [0.5, 0.5, 0.5]
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size=crop, image_mean=half, image_std=half)


class SceneRows:
    """The rows of a picture set by scene, so that a batch holds one picture of a scene: its rows look alike."""

    def __init__(self, rows: Sequence[Row]) -> None:
        whole: dict[int, list[int]] = {}
        cut: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            (cut if row["kind"] in _CUT_OUTS else whole).setdefault(row["scene"], []).append(index)
        self._scenes = [(rows_of, cut.get(scene, [])) for scene, rows_of in whole.items()]

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns `count` rows of as many scenes, most of them whole pictures, in rising order."""
        chosen = []
        for scene in rng.choice(len(self._scenes), count, replace=False):
            whole, cut = self._scenes[int(scene)]
            pool = cut if cut and rng.random() < _CUT_OUT_SHARE else whole
            chosen.append(pool[int(rng.integers(len(pool)))])
        return np.sort(chosen)


def contrast(model: CLIPModel, words: Tensor, seen: Tensor) -> tuple[Tensor, float]:
    """Returns the symmetric contrastive loss of unit embeddings `[B, projection]`, and recall@1 in the batch."""
    logits = model.logit_scale.exp().clamp(max=100) * words @ seen.T
    target = torch.arange(len(words))
    entropy = torch.nn.functional.cross_entropy
    recall = float((logits.argmax(1) == target).float().mean())
    return (entropy(logits, target) + entropy(logits.T, target)) / 2, recall


def train_clip(
    work: Path, out: Path, pictures: Path, unseen: Path, config: OptimConfig, seconds: float
) -> dict[str, float]:
    """Trains the model and writes it with its recall among 64 on unseen people.

    Args:
        work: Folder of the checkpoints; existing ones are resumed.
        out: Folder of the result.
        pictures: Picture set to train on.
        unseen: Picture set of other people.
        config: Optimizer and schedule of the first stage, in which both towers learn.
        seconds: Processor seconds of the second stage, in which the words stay.
    """
    known = PictureSet.open(pictures)
    model, tokenizer = build_clip()
    scenes = SceneRows(known.rows)

    def step_loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = scenes.draw(rng, config.batch_size)
        texts = [row_caption(known.rows[int(i)], rng) for i in rows]
        loss, recall = contrast(model, *embed(model, tokenizer, texts, to_tensor(known.images[rows])))
        return loss, {"recall_at_1": recall}

    def report(metrics: dict[str, float], step: int) -> None:
        print(step, {name: round(value, 3) for name, value in metrics.items()}, flush=True)

    train(model, LocalTask(step_loss), config, work, log=report)
    train_pictures(model, tokenizer, known, work / "pictures.pt", seconds, config)
    figures = measure(model, tokenizer, PictureSet.open(unseen))
    with atomic_dir(out) as folder:
        save_half(model, folder)
        CLIPProcessor(image_processor(), tokenizer).save_pretrained(folder)
        write_json(folder / "figures.json", figures)
    return figures


def train_pictures(
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerBase,
    known: PictureSet,
    checkpoint: Path,
    seconds: float,
    config: OptimConfig,
) -> None:
    """Goes on with the picture tower and the two projections; the text model keeps its weights.

    Args:
        model: The model after the first stage.
        tokenizer: Its tokenizer.
        known: Picture set to train on.
        checkpoint: File to resume from.
        seconds: Processor seconds over all sittings.
        config: Batch size, weight decay and seed.
    """
    model.train()
    model.text_model.requires_grad_(False)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        learning, lr=_PICTURES_RATE, betas=config.betas, weight_decay=config.weight_decay
    )
    scenes = SceneRows(known.rows)
    state = {"model": model, "optimizer": optimizer}
    running = 0.0
    for tick in timed_steps(checkpoint, state, seconds, "clip pictures"):
        rng = np.random.default_rng([config.seed, 1, tick.step])
        rows = scenes.draw(rng, config.batch_size)
        texts = [row_caption(known.rows[int(i)], rng, rng.random() < _COMPLETE_SHARE) for i in rows]
        loss, recall = contrast(model, *embed(model, tokenizer, texts, to_tensor(known.images[rows])))
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(tick.progress, _PICTURES_RATE)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(learning, config.clip)
        optimizer.step()
        running = 0.95 * running + 0.05 * recall if running else recall
        tick.note = f"recall {running:.3f}"
    model.requires_grad_(True).eval()


@torch.no_grad()
def measure(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, fresh: PictureSet) -> dict[str, float]:
    """Returns recall@1 among 64 scenes with complete captions: caption to picture, and only pairs of people."""
    model.eval()
    figures = {}
    for name, rows in (("scenes", fresh.select("scene")), ("pairs", fresh.select("scene", "pair"))):
        rng, right = np.random.default_rng(5), []
        for _ in range(8):
            chosen = rng.choice(rows, _AMONG, replace=False)
            texts = [row_caption(fresh.rows[int(i)], rng, complete=True) for i in chosen]
            words, seen = embed(model, tokenizer, texts, to_tensor(fresh.images[chosen]))
            right.append(float(((words @ seen.T).argmax(1) == torch.arange(_AMONG)).float().mean()))
        figures[f"recall_at_1_among_64_{name}"] = float(np.mean(right))
    return figures


def main() -> None:
    """Trains from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".work/clip"))
    parser.add_argument("--out", type=Path, default=Path(".work/parts/clip"))
    parser.add_argument("--pictures", type=Path, default=Path(".work/pictures/train"))
    parser.add_argument("--unseen", type=Path, default=Path(".work/pictures/eval"))
    parser.add_argument("--steps", type=int, default=900, help="steps in which both towers learn")
    parser.add_argument("--seconds", type=float, default=400, help="processor seconds for the pictures alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = OptimConfig(
        steps=given.steps, batch_size=64, lr=1e-3, warmup=50, log_every=50, weight_decay=0.05
    )
    print(train_clip(given.work, given.out, given.pictures, given.unseen, config, given.seconds))


if __name__ == "__main__":
    main()
