"""The pack's MLLM: a small LLaMA that learns SEED-X's skills on storybook pictures, binding names to faces among them.

A curriculum: crops by side; then who is who, in words alone and in pictures; then everything, with crops by
looks, pictures to paint and descriptions; the same in varied words and orders; last, mostly pictures. Figures are
on unseen people, with names drawn anew for every caption.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from visavis.chat.layout import collate, lay_out
from visavis.chat.template import CLOSE_UP, KEEP_IDENTICAL, KEPT, RESPONSE, Template
from visavis.errors import VisavisError
from visavis.files import write_json
from visavis.models.image_encoder import ImageEncoder, pool_tokens
from visavis.models.mllm import IGNORED, Mllm, MllmBatch, MllmConfig
from visavis.pretrain.encoded import encoded
from visavis.pretrain.geometry import initialise_locally
from visavis.pretrain.local_task import LocalTask
from visavis.pretrain.pictures import PictureSet
from visavis.pretrain.skills import (
    CROPS,
    DESCRIBE,
    GENERATE,
    HAS,
    OPENINGS,
    PLACE,
    SIDES,
    WHERE,
    Cast,
    Member,
    Sample,
    picture_sample,
    text_sample,
)
from visavis.pretrain.start import begin
from visavis.pretrain.vocabulary import build_tokenizer, save_tokenizer
from visavis.storybook.captions import CLOTHES_VOCABULARY, LOOKS_VOCABULARY, NAMES, PLACES_VOCABULARY
from visavis.training.config import OptimConfig
from visavis.training.engine import train

IMAGE_TOKENS = 64
CROP_WEIGHT = 2.0
LLM = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    # transformers' 0.02 suits widths of thousands; at 128 it keeps every layer near zero for long.
    "initializer_range": 0.07,
}
MIX = {
    "text": 0.15, "paint": 0.08, "describe": 0.10, "place": 0.02, "who": 0.13, "side": 0.08, "crop": 0.10, "name": 0.34,
}  # fmt: skip
_REFINING = {
    "text": 0.03, "paint": 0.20, "describe": 0.05, "place": 0.01, "who": 0.06, "side": 0.08, "crop": 0.17, "name": 0.40,
}  # fmt: skip
_FIRST = {"side": 1.0}
_BINDING = {"text": 0.35, "who": 0.15, "side": 0.10, "crop": 0.10, "name": 0.30}
_CHUNKS = 2
_PEOPLE_IN_TEXT = 5
_EXTRA_WORDS = """
    a an the and or of in on at is are with to it its he she they them who what where does have has else hair
    person people man woman friend friends two three one show face photo picture image close-up closeup portrait
    please keep identical unchanged i generate generated now yes no left right middle red orange yellow
    shows make draw paint me hello hi thanks thank you . , ? ! : ; - '
"""


@dataclass(frozen=True)
class Curriculum:
    """Steps at which what is learned changes.

    Attributes:
        first: Until here it is crops by side alone.
        binding: Until here names in words alone are most of it.
        vary: From here requests vary in form.
        refine: From here pictures are most of it, for words are learned by then.
        shares: Share of some skills from the end of `binding` on, the others in proportion.
    """

    first: int = 300
    binding: int = 800
    vary: int = 5000
    refine: int = 7500
    shares: Mapping[str, float] = field(default_factory=dict)

    def mix(self, step: int) -> dict[str, float]:
        """Returns the weight of each skill."""
        if step < self.first:
            return _FIRST
        if step < self.binding:
            return _BINDING
        mix = MIX if step < self.refine else _REFINING
        others = sum(weight for skill, weight in mix.items() if skill not in self.shares)
        rest = (1 - sum(self.shares.values())) / others
        return {skill: self.shares.get(skill, weight * rest) for skill, weight in mix.items()}


@dataclass(frozen=True)
class World:
    """A picture set as the skills see it: tokens of every row, and rows by what they are good for."""

    tokens: np.ndarray
    pairs: list[Cast]
    singles: list[Cast]
    scenes: list[Cast]


def all_texts() -> list[str]:
    """Returns every phrase that the tokenizer must know."""
    fixed = [
        CLOSE_UP,
        KEEP_IDENTICAL,
        KEPT,
        RESPONSE,
        DESCRIBE,
        GENERATE,
        HAS,
        PLACE,
        WHERE,
        _EXTRA_WORDS,
    ]
    return [
        *fixed,
        *CROPS,
        *OPENINGS,
        *SIDES,
        *NAMES,
        *LOOKS_VOCABULARY,
        *CLOTHES_VOCABULARY,
        *PLACES_VOCABULARY,
    ]


def encode_set(encoder: ImageEncoder, pictures: PictureSet) -> NDArray[np.float16]:
    """Returns pooled tokens `[N, 64, d]` of every picture of a set; they are kept beside it."""
    return encoded(pictures, "tokens", lambda pixels: pool_tokens(encoder(pixels)))


def open_world(encoder: ImageEncoder, root: Path) -> World:
    """Encodes a picture set and sorts its rows into casts."""
    pictures = PictureSet.open(root)
    tokens = encode_set(encoder, pictures)
    pairs, singles, scenes = [], [], []
    for number, row in enumerate(pictures.rows):
        people = tuple(_member(p, row["kind"] != "closeup") for p in row["people"])
        cast = Cast(number, people, row["place"])
        if row["kind"] in ("closeup", "portrait") or row["layout"] in ("portrait", "one"):
            singles.append(cast)
        if (
            row["kind"] in ("scene", "moved")
            and row["layout"] == "pair"
            and all(member.face >= 0 for member in people)
        ):
            pairs.append(cast)
        if row["kind"] in ("scene", "moved") and len(people) < 3:
            scenes.append(cast)
    return World(tokens, pairs, singles, scenes)


def _member(person: dict[str, Any], dressed: bool) -> Member:
    face = -1 if person["closeup"] is None else person["closeup"]
    looks = (*person["looks"], person["clothes"]) if dressed else tuple(person["looks"])
    return Member(looks, person["side"] or "", face)


def mean_boxes(pictures: PictureSet) -> dict[str, tuple[float, float, float, float]]:
    """Returns the mean face box in px of people on the left and on the right of pairs."""
    boxes: dict[str, list[list[float]]] = {"left": [], "right": []}
    for row in pictures.rows:
        if row["kind"] == "scene" and row["layout"] == "pair":
            for person in row["people"]:
                boxes[person["side"]].append(person["box"])
    return {side: tuple(np.mean(found, axis=0).tolist()) for side, found in boxes.items()}


def draw(world: World, skill: str, rng: np.random.Generator, varied: bool = False) -> Sample:
    """Draws one sample of a skill; people get names of their own each time."""
    names = [NAMES[int(i)] for i in rng.choice(len(NAMES), _PEOPLE_IN_TEXT, replace=False)]
    if skill == "text":
        people = [world.pairs[int(i)].people[0] for i in rng.integers(len(world.pairs), size=_PEOPLE_IN_TEXT)]
        return text_sample(people, names, rng)
    pools = {"paint": world.pairs if rng.random() < 0.7 else world.scenes, "describe": world.singles}
    pools["place"] = world.scenes
    pool = pools.get(skill, world.pairs)
    cast = pool[int(rng.integers(len(pool)))]
    return picture_sample(skill, cast, names, rng, CROP_WEIGHT, varied)


def make_batch(samples: list[Sample], world: World, template: Template) -> MllmBatch:
    """Lays out samples."""
    layouts = [lay_out(template.segments(sample.turns), template, reread=sample.reread) for sample in samples]
    pictures = [[world.tokens[row] for row in sample.pictures] for sample in samples]
    return collate(layouts, pictures, IMAGE_TOKENS, [sample.weights for sample in samples])


@torch.no_grad()
def measure(
    model: Mllm, world: World, template: Template, count: int = 96, varied: bool = False
) -> dict[str, float]:
    """Measures the skills on a world of unseen people, in one form of request or in varied ones.

    Crops count as right when they are nearer to the asked person's close-up than to the other one's (chance 0.5);
    answers when every word is right.
    """
    model.eval()
    figures: dict[str, float] = {}
    for number, skill in enumerate(MIX):
        rng = np.random.default_rng((7, number))
        samples = [draw(world, skill, rng, varied) for _ in range(count)]
        batch = make_batch(samples, world, template)
        hidden = model.hidden_states(batch)
        supervised = batch.labels != IGNORED
        if skill in ("text", "who", "describe", "place"):
            right = model.llm.lm_head(hidden[supervised]).argmax(-1) == batch.labels[supervised]
            figures[f"{skill}_words"] = float(right.float().mean())
        if skill == "name":
            left_right = torch.tensor(template.ids("left right"))
            is_side = supervised & torch.isin(batch.labels, left_right)
            figures["where_is_name"] = float(
                (model.llm.lm_head(hidden[is_side]).argmax(-1) == batch.labels[is_side]).float().mean()
            )
        if skill in ("paint", "crop", "name"):
            predicted = model.predict_images(hidden, batch.write).numpy()
            figures |= _image_figures(skill, predicted, samples, world)
    model.train()
    return figures


def _image_figures(
    skill: str, predicted: np.ndarray, samples: list[Sample], world: World
) -> dict[str, float]:
    others: dict[int, int] = {}
    for cast in world.pairs:
        for member, other in (cast.people, cast.people[::-1]):
            others[member.face] = other.face
    errors, right, position = [], [], 0
    for sample in samples:
        wanted = [row for turn in sample.turns if turn["role"] == "assistant" for row in _images(turn)]
        for local in wanted:
            row = sample.pictures[local]
            error = float(np.square(predicted[position] - world.tokens[row].astype(np.float32)).mean())
            errors.append(error)
            if skill != "paint":
                other = world.tokens[others[row]].astype(np.float32)
                right.append(error < float(np.square(predicted[position] - other).mean()))
            position += 1
    figures = {f"{skill}_mse": float(np.mean(errors))}
    if right:
        figures[f"{skill}_right_person"] = float(np.mean(right))
    return figures


def _images(turn: dict[str, Any]) -> list[int]:
    return [part["image"] for part in turn["content"] if part["type"] == "image"]


def build_model(tokenizer: PreTrainedTokenizerBase, token_dim: int) -> Mllm:
    """Builds the untrained model."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
        **LLM,
    )
    mllm = MllmConfig(
        token_dim=token_dim,
        image_tokens=IMAGE_TOKENS,
        input_connector="pool",
        output_connector="linear",
        token_shift=4,
        rec_weight=3.0,
    )
    return Mllm(LlamaForCausalLM(config), mllm)


def _untrained(tokenizer: PreTrainedTokenizerBase, template: Template, world: World, pictures: Path) -> Mllm:
    """Builds a model whose attention begins where the curriculum wants it."""
    model = build_model(tokenizer, world.tokens.shape[2])
    names = {i for text in NAMES for i in template.ids(text)}
    telling = {
        i for text in (*SIDES, *LOOKS_VOCABULARY, *CLOTHES_VOCABULARY) for i in template.ids(text)
    } - names
    boxes = mean_boxes(PictureSet.open(pictures))
    initialise_locally(model, template.queries, sorted(names), sorted(telling), boxes)
    return model


def _begun(start: Path, tokenizer: PreTrainedTokenizerBase) -> Mllm:
    """Reads a model to go on from."""
    if AutoTokenizer.from_pretrained(start).get_vocab() != tokenizer.get_vocab():
        raise VisavisError(
            f"the model in {start} has another vocabulary than this code",
            fix="train it from nothing: leave --start out",
        )
    return Mllm.from_pretrained(start)


def train_mllm(
    work: Path,
    out: Path,
    encoder: ImageEncoder,
    pictures: Path,
    unseen: Path,
    config: OptimConfig,
    curriculum: Curriculum,
    start: Path | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, float]:
    """Trains the model and writes it with the figures on unseen people.

    Args:
        work: Folder of the checkpoint; an existing one is resumed.
        out: Folder of the result.
        encoder: The frozen encoder.
        pictures: Picture set to train on.
        unseen: Picture set of other people.
        config: Optimizer and schedule.
        curriculum: What is learned when.
        start: Folder of a model to go on from; None begins with nothing.
        log: Receives lines for people.

    Raises:
        VisavisError: If the model in `start` has another vocabulary, or the checkpoint in `work` began from others.
    """
    begin(work, start)
    tokenizer = build_tokenizer(all_texts(), IMAGE_TOKENS)
    template = Template(tokenizer, IMAGE_TOKENS)
    world, fresh = open_world(encoder, pictures), open_world(encoder, unseen)
    model = _begun(start, tokenizer) if start else _untrained(tokenizer, template, world, pictures)

    def step_loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        mix = curriculum.mix(step)
        shares = np.asarray(list(mix.values())) / sum(mix.values())
        samples = [
            draw(world, str(skill), rng, step >= curriculum.vary)
            for skill in rng.choice(list(mix), config.batch_size, p=shares)
        ]
        # Samples of like length share a forward pass, for padding costs as much as words.
        samples.sort(key=lambda sample: (len(sample.pictures), len(sample.turns)))
        size = -(-len(samples) // _CHUNKS)
        losses = [
            model(make_batch(samples[start : start + size], world, template))
            for start in range(0, len(samples), size)
        ]
        total = torch.stack([loss.total for loss in losses]).mean()
        text, image = (
            float(np.mean([float(getattr(loss, name)) for loss in losses])) for name in ("text", "image")
        )
        return total, {"text_loss": text, "image_loss": image}

    def report(metrics: dict[str, float], step: int) -> None:
        line = {name: round(value, 4) for name, value in metrics.items()}
        if step % 250 == 0:
            figures = measure(model, fresh, template, varied=step > curriculum.vary)
            line |= {name: round(value, 3) for name, value in figures.items()}
        log(f"{step} {line}")

    train(model, LocalTask(step_loss), config, work, log=report)
    figures = measure(model, fresh, template, 400)
    varied = measure(model, fresh, template, 400, varied=True)
    figures |= {f"{name}_varied": value for name, value in varied.items()}
    model.save_pretrained(out, torch.float16)
    save_tokenizer(tokenizer, out)
    write_json(out / "figures.json", figures)
    return figures


def main() -> None:
    """Trains from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".work/mllm"))
    parser.add_argument("--out", type=Path, default=Path(".work/parts/mllm"))
    parser.add_argument("--encoder", type=Path, default=Path(".work/parts/image_encoder"))
    parser.add_argument("--pictures", type=Path, default=Path(".work/pictures/train"))
    parser.add_argument("--unseen", type=Path, default=Path(".work/pictures/eval"))
    parser.add_argument("--start", type=Path, help="go on from the weights in this folder")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--first-steps", type=int, default=Curriculum.first)
    parser.add_argument("--binding-steps", type=int, default=Curriculum.binding)
    parser.add_argument("--vary-from", type=int, default=Curriculum.vary)
    parser.add_argument("--refine-from", type=int, default=Curriculum.refine)
    parser.add_argument(
        "--share",
        action="append",
        default=[],
        metavar="SKILL=SHARE",
        help="share of a skill in the later mixes",
    )
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--ema", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shares = {skill: float(share) for skill, _, share in (text.partition("=") for text in given.share)}
    if unknown := sorted(shares.keys() - MIX.keys()):
        parser.error(f"--share: unknown skill {unknown[0]}; use {', '.join(MIX)}")
    if min(shares.values(), default=1) <= 0 or sum(shares.values()) >= 1 or shares.keys() == MIX.keys():
        parser.error(
            f"--share: {' '.join(given.share)}; use shares above 0 that leave something for other skills"
        )
    config = OptimConfig(
        steps=given.steps,
        batch_size=given.batch_size,
        lr=given.lr,
        ema=given.ema,
        warmup=100,
        log_every=50,
        checkpoint_seconds=60,
    )
    encoder = ImageEncoder.from_pretrained(given.encoder)
    figures = train_mllm(
        given.work,
        given.out,
        encoder,
        given.pictures,
        given.unseen,
        config,
        Curriculum(given.first_steps, given.binding_steps, given.vary_from, given.refine_from, shares),
        given.start,
    )
    print(figures)


if __name__ == "__main__":
    main()
