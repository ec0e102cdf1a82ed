"""How fast the MLLM is tuned on chats of three rounds, against a trainer written the way of SEED-X and SEED-Story.

    python benchmarks/training.py                  # minutes on 2 cores
    python benchmarks/training.py --steps 2 --chats 16

Measured with the same weights on the same chats, fp32, every contender in turn with the others, in its own process:

    reference             one supervised round a row: earlier images are read, only the last is learned from; rows
                          are right-padded to the longest chat of the data, logits over the whole vocabulary at
                          every token, each image decoded and encoded on the fly
    without encoder       the same, image tokens precomputed
    ours                  `ChatTask` from a token store on disk: all rounds of a chat in one pass, chats packed into
                          rows, logits where words are taught

A step of each learns from the same rounds; before the race the three losses are held against each other. The model
is SEED-X at a tenth of its width with few layers: its ratios of vocabulary, MLP, image tokens and encoder to width;
its encoder sees 1,024 patches of a picture, as SEED-X's does, and pools them to 256. Few layers make the vocabulary
weigh more than in SEED-X; `--layers` tells how much that matters.

The last line is one JSON object: `rounds_vs_reference` and `rounds_vs_reference_no_encoder` (rounds per second of
ours over the reference), `matmul_share` (FLOP of our step's matrix products over the whole step's time, over the
rate of `torch.mm` for the shapes of its layers; attention's FLOP are left out, its time is not), `loader_headroom`
(chats per second that are drawn and laid out, over those that are learned from), `memory_vs_reference` (peak bytes
of one step above what the weights take, reference without encoder over ours, in processes of their own, for the
same rounds; the table also has it for as many tokens in the rows).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from seedx_tenth import HEADS, IMAGE_TOKENS, INTERMEDIATE, SIDE, TOKEN_DIM, WIDTH, WORDS, image_encoder, llama
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from visavis.chat.template import CLOSE_UP, RESPONSE, ImageSegment, Segment, Template, assistant, user
from visavis.data.published.token_shards import Facts, read_shapes, shard_path, write_shard
from visavis.data.published.tokens import SAMPLES, TokenStore
from visavis.files import write_jsonl
from visavis.models.image_encoder import ImageEncoder
from visavis.models.mllm import Mllm, MllmConfig, pooled
from visavis.models.pixels import to_tensor
from visavis.pretrain.vocabulary import build_tokenizer
from visavis.training.config import StageConfig
from visavis.training.engine import step_rng
from visavis.training.mllm import ChatTask, chat_task

BARS = {
    "rounds_vs_reference": 4.0,
    "rounds_vs_reference_no_encoder": 2.5,
    "matmul_share": 0.6,
    "loader_headroom": 10.0,
    "memory_vs_reference": 2.0,
}
_ROUNDS = 3
_CAPTION_WORDS = (16, 64)
_REC_WEIGHT = 6.0
_WARM_UP = 2

console = Console(highlight=False)


@dataclass
class World:
    """Weights and chats that all contenders share.

    Attributes:
        model: The MLLM.
        encoder: The frozen encoder; pictures have `SIDE` px.
        template: Renders chats.
        store: The chats with tokens of their pictures, on disk.
        task: Our way to train on them.
        files: PNG of each row's picture.
        longest: Tokens of the longest chat as the reference lays it out.
    """

    model: Mllm
    encoder: ImageEncoder
    template: Template
    store: TokenStore
    task: ChatTask
    files: list[bytes]
    longest: int

    def step_of_ours(self, samples: Sequence[dict[str, Any]]) -> Tensor:
        """Returns the loss of the chats, from disk to loss."""
        batch = self.task.collate(samples)
        return self.task.loss(self.model, batch, self.task.counts(batch))[0]

    def step_of_reference(self, samples: Sequence[dict[str, Any]], on_the_fly: bool) -> Tensor:
        """Returns the loss of all rounds of the chats, a row for each."""
        rows = [(sample, end) for sample in samples for end in range(1, 2 * _ROUNDS, 2)]
        return reference_loss(self, rows, on_the_fly)


def reference_loss(world: World, rows: Sequence[tuple[dict[str, Any], int]], on_the_fly: bool) -> Tensor:
    """Returns the loss of rows (chat, number of its last turn), each padded to the longest chat."""
    model, template = world.model, world.template
    ids = torch.zeros(len(rows), world.longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    seen = torch.zeros_like(ids)
    is_read, is_written = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    read, written = list[int](), list[int]()
    for row, (sample, end) in enumerate(rows):
        history = template.segments(sample["turns"][:end], end=False)
        answer = template.segments(sample["turns"][: end + 1])[len(history) :]
        place = 0
        for number, segment in enumerate([*history, *answer]):
            is_answer = number >= len(history)
            words = template.queries if isinstance(segment, ImageSegment) else segment.ids
            span = slice(place, place + len(words))
            ids[row, span] = torch.tensor(words)
            place += len(words)
            if isinstance(segment, ImageSegment):
                (is_written if is_answer else is_read)[row, span] = True
                (written if is_answer else read).append(sample["rows"][segment.picture])
                if is_answer:
                    break
            elif is_answer:
                labels[row, span] = ids[row, span]
        seen[row, :place] = 1
    tokens = encoded(world, [*read, *written], on_the_fly)
    embeddings = model.llm.get_input_embeddings()(ids)
    if read:
        images = model.connectors["input"](tokens[: len(read)])
        embeddings = embeddings.masked_scatter(is_read[..., None], images)
    output = model.llm.model(inputs_embeds=embeddings, attention_mask=seen, use_cache=False)
    hidden = output.last_hidden_state
    logits = model.llm.lm_head(hidden).float()
    text = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    predicted = model.connectors["output"](hidden[is_written].view(len(rows), IMAGE_TOKENS, -1))
    return text + _REC_WEIGHT * functional.mse_loss(predicted, pooled(tokens[len(read) :], IMAGE_TOKENS))


def encoded(world: World, rows: list[int], on_the_fly: bool) -> Tensor:
    """Returns the tokens `[n, 256, d]` of the pictures of some rows."""
    if not on_the_fly:
        return torch.from_numpy(world.store.tokens[rows].astype(np.float32))
    pictures = [np.asarray(Image.open(io.BytesIO(world.files[row])).convert("RGB")) for row in rows]
    with torch.no_grad():
        # As the store keeps them, so that all contenders learn from the same tokens.
        return world.encoder(to_tensor(np.stack(pictures))).half().float()


CONTENDERS: dict[str, Callable[[World, Sequence[dict[str, Any]]], Tensor]] = {
    "reference": lambda world, samples: world.step_of_reference(samples, True),
    "reference without encoder": lambda world, samples: world.step_of_reference(samples, False),
    "ours": World.step_of_ours,
}


def make_world(folder: Path, chats: int, layers: int, batch_size: int) -> World:
    """Builds weights and chats from a seed, and the token store, unless it is there."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(WORDS)]
    fixed = [RESPONSE, CLOSE_UP]
    tokenizer = build_tokenizer([*fixed, " ".join(words)], IMAGE_TOKENS)
    spare = len(tokenizer) - WORDS
    tokenizer = build_tokenizer([*fixed, " ".join(words[: WORDS - spare])], IMAGE_TOKENS)
    known = words[: WORDS - spare]
    llama_shape = llama(len(tokenizer), layers)
    shape = MllmConfig(token_dim=TOKEN_DIM, connector_heads=HEADS, rec_weight=_REC_WEIGHT)
    model = Mllm(LlamaForCausalLM(llama_shape), shape).train()
    encoder = image_encoder()
    pictures = rng.integers(256, size=(_ROUNDS * chats, SIDE, SIDE, 3), dtype=np.uint8)
    if not (folder / SAMPLES).is_file():
        write_store(folder, encoder, pictures, [chat(rng, known, number) for number in range(chats)])
    store = TokenStore.open(folder)
    template = Template(tokenizer, IMAGE_TOKENS)
    config = StageConfig(sets={"rounds": 1.0}, batch_size=batch_size)
    task, _ = chat_task(model, template, store, config)
    longest = max(
        sum(len(s.ids) if not isinstance(s, ImageSegment) else IMAGE_TOKENS for s in segments_of(sample, template))
        for sample in store.samples
    )  # fmt: skip
    return World(model, encoder, template, store, task, [png(picture) for picture in pictures], longest)


def segments_of(sample: dict[str, Any], template: Template) -> list[Segment]:
    """Returns a chat up to its last image, which nothing is learned behind."""
    return template.segments(sample["turns"])[:-2]


def chat(rng: np.random.Generator, words: list[str], number: int) -> dict[str, Any]:
    """Returns a chat by name: a caption, then a close-up of either person."""
    caption = " ".join(rng.choice(words, int(rng.integers(*_CAPTION_WORDS, endpoint=True))))
    turns = [user(caption), assistant(RESPONSE, 0)]
    for picture, name in enumerate(rng.choice(words, 2, replace=False), 1):
        turns += [user(CLOSE_UP.format(name=name)), assistant(RESPONSE, picture)]
    rows = list(range(_ROUNDS * number, _ROUNDS * (number + 1)))
    return {"id": str(number), "set": "rounds", "split": "train", "turns": turns, "rows": rows}


@torch.no_grad()
def write_store(
    folder: Path, encoder: ImageEncoder, pictures: np.ndarray, samples: list[dict[str, Any]]
) -> None:
    """Writes the token store that ours reads."""
    folder.mkdir(parents=True, exist_ok=True)
    latent = np.zeros((4, 8, 8), np.float16)
    rows = []
    for start in range(0, len(pictures), _ROUNDS):
        part = pictures[start : start + _ROUNDS]
        tokens = encoder(to_tensor(part)).half().numpy()
        rows += [
            {"picture": picture, "tokens": token, "latents": latent}
            for picture, token in zip(part, tokens, strict=True)
        ]
    write_shard(shard_path(folder, 0), [f"{number:064d}" for number in range(len(rows))], rows)
    write_jsonl(folder / SAMPLES, samples)
    Facts("benchmark", len(rows), len(rows), read_shapes(shard_path(folder, 0))).write(folder)


def png(picture: np.ndarray) -> bytes:
    """Returns a picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def agree(world: World) -> None:
    """Holds the contenders' losses against each other.

    Raises:
        AssertionError: If they do not learn the same.
    """
    samples = world.task.draw(0, step_rng(0, 0))[:2]
    with torch.no_grad():
        losses = [
            world.step_of_ours(samples),
            world.step_of_reference(samples, False),
            world.step_of_reference(samples, True),
        ]
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], atol=1e-3, rtol=1e-3)


def race(folder: Path, steps: int) -> dict[str, float]:
    """Returns the median seconds of a training step of each contender; all take each step, in changing order.

    Each trains in a process of its own, as a trainer does, and waits while another takes its step.
    """
    command = [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder), "--race"]
    runners = {
        name: subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in CONTENDERS
    }
    spent: dict[str, list[float]] = {name: [] for name in runners}
    names = list(runners)
    for step in track(range(_WARM_UP + steps), "training", console=console, transient=True):
        turn = step % len(names)
        for name in names[turn:] + names[:turn]:
            seconds = asked(runners[name], step)
            if step >= _WARM_UP:
                spent[name].append(seconds)
    for runner in runners.values():
        runner.communicate()
    return {name: statistics.median(times) for name, times in spent.items()}


def asked(runner: subprocess.Popen[str], step: int) -> float:
    """Returns the seconds in which a process of the race takes a step."""
    assert runner.stdin and runner.stdout
    runner.stdin.write(f"{step}\n")
    runner.stdin.flush()
    return float(runner.stdout.readline())


def run_race(world: World, contender: str) -> None:
    """Takes each step whose number comes in, and prints its seconds."""
    optimizer = torch.optim.AdamW(world.model.parameters(), lr=1e-5, fused=True)
    for line in sys.stdin:
        began = time.perf_counter()
        samples = world.task.draw(int(line), step_rng(0, int(line)))
        train_on(world.model, optimizer, CONTENDERS[contender](world, samples))
        print(time.perf_counter() - began, flush=True)


def train_on(model: Mllm, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Takes the optimizer's step for a loss, as the engine does."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def matmul_share(world: World, repeats: int) -> tuple[float, float, float]:
    """Returns share, FLOP per second of our step, and of `torch.mm` for the shapes of its layers."""
    samples = world.task.draw(0, step_rng(0, 0))
    optimizer = torch.optim.AdamW(world.model.parameters(), lr=1e-5, fused=True)
    with FlopCounterMode(display=False) as counter:
        world.step_of_ours(samples).backward()
    counts = counter.get_flop_counts()["Global"]
    flop = sum(count for op, count in counts.items() if "attention" not in str(op))
    tokens = world.task.collate(samples).input_ids.numel()
    steps, products = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        train_on(world.model, optimizer, world.step_of_ours(samples))
        steps.append(time.perf_counter() - began)
        products.append(mm_rate(tokens))
    ours = flop / statistics.median(steps)
    theirs = statistics.median(products)
    return ours / theirs, ours, theirs


def mm_rate(tokens: int) -> float:
    """Returns FLOP per second of the products of a layer: forward, and backward to inputs and weights."""
    wide, narrow = torch.randn(tokens, INTERMEDIATE), torch.randn(tokens, WIDTH)
    square, up = torch.randn(WIDTH, WIDTH), torch.randn(WIDTH, INTERMEDIATE)
    began = time.perf_counter()
    for _ in range(4):
        torch.mm(narrow, square), torch.mm(narrow, square.t()), torch.mm(narrow.t(), narrow)
    for _ in range(3):
        torch.mm(narrow, up), torch.mm(wide, up.t()), torch.mm(narrow.t(), wide)
    flop = 2 * 3 * tokens * WIDTH * (4 * WIDTH + 3 * INTERMEDIATE)
    return flop / (time.perf_counter() - began)


def loader_speed(world: World, steps: int) -> float:
    """Returns chats per second that are drawn, read from disk and laid out."""
    began = time.perf_counter()
    for step in range(steps):
        world.task.collate(world.task.draw(step, step_rng(0, step)))
    return steps * world.task.config.batch_size / (time.perf_counter() - began)


def weigh(world: World, contender: str) -> dict[str, float]:
    """Returns the peak MiB of one step above what was there before, and the tokens in its rows. For a fresh process."""
    optimizer = torch.optim.AdamW(world.model.parameters(), lr=1e-5, fused=True)
    samples = world.task.draw(0, step_rng(0, 0))
    # Its moments are there before the step that is weighed; the warm-up is too small to reach that step's peak.
    train_on(world.model, optimizer, world.step_of_ours(samples[:1]))
    optimizer.zero_grad(set_to_none=True)
    tokens = world.task.collate(samples).input_ids.numel()
    rows = [(sample, end) for sample in samples for end in range(1, 2 * _ROUNDS, 2)]
    if contender == "equal_tokens":
        rows = rows[-round(tokens / world.longest) :]
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    if contender == "ours":
        loss = world.step_of_ours(samples)
    else:
        loss, tokens = reference_loss(world, rows, False), len(rows) * world.longest
    train_on(world.model, optimizer, loss)
    return {"peak_mib": resident("VmHWM") - before, "tokens": float(tokens)}


def resident(field: str) -> float:
    """Returns the memory (`VmRSS`) of this process, or its peak (`VmHWM`), in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def report(rows: Sequence[tuple[str, str]], ratios: dict[str, float]) -> None:
    """Prints what was measured, and the ratios beside their bars."""
    table = Table("", "measured", title="Training on chats of three rounds")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    table = Table("ratio", "measured", "bar", "")
    for name, value in ratios.items():
        table.add_row(name, f"{value:.2f}", f"≥ {BARS[name]:g}", "holds" if value >= BARS[name] else "missed")
    console.print(table)
    load, cpus = os.getloadavg()[0], os.cpu_count()
    threads = torch.get_num_threads()
    console.print(
        f"{cpus} CPUs, {threads} threads; load over the last minute {load:.1f}, of which ours {threads}"
    )


def main() -> None:
    """Reads the arguments, prints the tables and, last, the ratios as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chats", type=int, default=64, help="chats of the data set")
    parser.add_argument("--batch", type=int, default=8, help="chats of a step")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of each contender")
    parser.add_argument("--layers", type=int, default=4, help="layers of the LLaMA")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--weigh", help=argparse.SUPPRESS)
    parser.add_argument("--race", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = options.chats, options.layers, options.batch
    if options.weigh:
        print(json.dumps(weigh(make_world(options.folder, *shape), options.weigh)))
        return
    if options.race:
        run_race(make_world(options.folder, *shape), options.race)
        return
    with tempfile.TemporaryDirectory(prefix="visavis-training-") as name:
        folder = Path(name) / "store"
        world = make_world(folder, *shape)
        agree(world)
        seconds = race(folder, options.steps)
        share, ours, theirs = matmul_share(world, options.steps)
        loaded = loader_speed(world, 8 * options.steps)
        with console.status("weighing"):
            weights = {
                contender: weighed(folder, contender) for contender in ("ours", "reference", "equal_tokens")
            }
    rounds = _ROUNDS * options.batch
    ratios = {
        "rounds_vs_reference": seconds["reference"] / seconds["ours"],
        "rounds_vs_reference_no_encoder": seconds["reference without encoder"] / seconds["ours"],
        "matmul_share": share,
        "loader_headroom": loaded * seconds["ours"] / options.batch,
        "memory_vs_reference": weights["reference"]["peak_mib"] / weights["ours"]["peak_mib"],
    }
    parameters = sum(p.numel() for p in world.model.llm.model.layers.parameters())
    rows = [
        ("LLaMA", f"{options.layers} layers of width {WIDTH}: {parameters / 1e6:.1f} M weights"),
        ("vocabulary", f"{len(world.template.tokenizer)} words"),
        (
            "encoder",
            f"{sum(p.numel() for p in world.encoder.parameters()) / 1e6:.1f} M weights, 1024 patches",
        ),
        ("a step", f"{options.batch} chats = {rounds} rounds; longest chat {world.longest} tokens"),
    ]
    rows += [(name, f"{rounds / value:.2f} rounds/s") for name, value in seconds.items()]
    rows += [
        ("matrix products of our step", f"{ours / 1e9:.1f} GFLOP/s"),
        ("torch.mm for the same shapes", f"{theirs / 1e9:.1f} GFLOP/s"),
        ("loader", f"{loaded:.0f} chats/s"),
    ]
    names = {"ours": "ours", "reference": "reference, same rounds", "equal_tokens": "reference, same tokens"}
    rows += [
        (
            f"memory of a step: {names[key]}",
            f"{value['peak_mib']:.0f} MiB, {value['tokens']:.0f} tokens in rows",
        )
        for key, value in weights.items()
    ]
    report(rows, {name: round(value, 3) for name, value in ratios.items()})
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


def weighed(folder: Path, contender: str) -> dict[str, float]:
    """Returns the figures of `weigh` from a fresh process with the same arguments."""
    command = [sys.executable, __file__, *sys.argv[1:], "--weigh", contender, "--folder", str(folder)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
