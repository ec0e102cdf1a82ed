"""How fast a chat goes on, against one that is read anew in every round as SEED-X does.

    python benchmarks/chat.py
    python benchmarks/chat.py --rounds 8 --layers 4

A chat of rounds "a close-up of NAME" is held in three ways, in turn, with the same weights; nothing is painted:

    ours          what was read is remembered; the words and the picture of the last answer, and the new sentence, are
                  read; the image block is one pass
    recomputed    every round encodes all pictures and reads the whole chat, as SEED-X's inference; 64 forced steps
    forced        ours, but with the image block as 64 forced steps, for `image_block_vs_forced`

The model is SEED-X at a tenth of its width with few layers, the encoder sees 1,024 patches. The answers are scripted,
so that all take the same number of steps. The last line is one JSON object: `image_block_vs_forced` (seconds of 64
forced steps over those of the block), `round8_over_round2` (seconds of ours, last round over second),
`cache_vs_recompute_round8` (seconds of recomputing over ours, last round), and the same ratio up to the first word,
`first_word_vs_recompute_round8`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from seedx_tenth import HEADS, IMAGE_TOKENS, SIDE, TOKEN_DIM, WORDS, image_encoder, llama
from transformers import LlamaForCausalLM

from visavis.chat.conversation import ASSISTANT, USER, Message
from visavis.chat.layout import lay_out
from visavis.chat.memory import Memory, Store
from visavis.chat.model import ChatModel
from visavis.chat.reader import Reader
from visavis.chat.reading import Chat, Reading
from visavis.chat.talker import content_of, turns_of
from visavis.chat.template import CLOSE_UP, RESPONSE
from visavis.models.mllm import Mllm, MllmConfig
from visavis.pretrain.vocabulary import build_tokenizer

BARS = {
    "image_block_vs_forced": ("at least", 8.0),
    "round8_over_round2": ("at most", 1.3),
    "cache_vs_recompute_round8": ("at least", 5.0),
    "first_word_vs_recompute_round8": ("at least", 5.0),
}
_CAPTION_WORDS = 40

console = Console(highlight=False)


def make_model(layers: int, rounds: int) -> ChatModel:
    """Builds weights from a seed."""
    torch.manual_seed(0)
    words = " ".join(f"word{number}" for number in range(WORDS))
    tokenizer = build_tokenizer([RESPONSE, CLOSE_UP, words], IMAGE_TOKENS)
    llama_shape = llama(len(tokenizer), layers, 512 + 128 * rounds)
    mllm = Mllm(LlamaForCausalLM(llama_shape), MllmConfig(token_dim=TOKEN_DIM, connector_heads=HEADS))
    encoder = image_encoder()
    return ChatModel(mllm, tokenizer, encoder, fingerprint="benchmark")


class Way:
    """One way to hold the chat.

    Args:
        model: The model.
        remember: Whether what was read is kept.
        forced: Whether an image block is 64 steps.
    """

    def __init__(self, model: ChatModel, remember: bool, forced: bool) -> None:
        self.model, self.forced = model, forced
        self.memories: Store[Memory] | None = Store(2**31) if remember else None
        self.features: dict[str, NDArray[np.float32]] = {}

    @torch.no_grad()
    def round(self, messages: list[Message]) -> tuple[float, float, float]:
        """Answers a chat; returns seconds to the first word, of the image block, and of all."""
        began = time.perf_counter()
        model, template = self.model, self.model.template
        turns, pictures = turns_of(messages, 1, SIDE)
        names = [content_of(picture) for picture in pictures]
        known = self.features if self.memories is not None else {}
        fresh = [picture for name, picture in zip(names, pictures, strict=True) if name not in known]
        encoded = iter(model.encode(fresh)) if fresh else iter(())
        tokens = [known[name] if name in known else next(encoded) for name in names]
        known.update(zip(names, tokens, strict=True))
        reading = Reading.of(Chat(turns, tokens, names), template, model.room, self.memories, "benchmark")
        reader = Reader(model.mllm, [reading.past], [lay_out(reading.new, template)], [reading.pictures])
        if self.memories is not None:
            reading.keep(reader.memories(0, reading.ends), self.memories)
        reader.scores().argmax(-1)
        first = time.perf_counter()
        for word in (*template.ids(RESPONSE), template.image_open):
            reader.say(torch.tensor([word]))
            reader.scores()
        block = time.perf_counter()
        if self.forced:
            hidden = []
            for query in template.queries:
                reader.say(torch.tensor([query]))
                reader.scores()
                hidden.append(reader.hidden)
            model.mllm.connectors["output"](torch.stack(hidden, dim=1))
        else:
            reader.write_image(torch.tensor(template.queries))
        done = time.perf_counter()
        return first - began, done - block, done - began


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8, help="rounds of the chat")
    parser.add_argument("--layers", type=int, default=4, help="layers of the LLaMA")
    parser.add_argument("--repeats", type=int, default=5, help="chats that are held in each way")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = make_model(given.layers, given.rounds)
    names = ["ours", "recomputed", "forced"]
    spent: dict[str, list[list[tuple[float, float, float]]]] = {
        name: [[] for _ in range(given.rounds)] for name in names
    }
    for repeat in track(range(given.repeats + 1), "chatting", console=console, transient=True):
        makers: dict[str, Callable[[], Way]] = {
            "ours": lambda: Way(model, remember=True, forced=False),
            "recomputed": lambda: Way(model, remember=False, forced=True),
            "forced": lambda: Way(model, remember=True, forced=True),
        }
        ways = {name: make() for name, make in makers.items()}
        rng = np.random.default_rng(repeat)
        caption = " ".join(f"word{number}" for number in rng.integers(WORDS, size=_CAPTION_WORDS))
        messages = [Message(USER, (caption,))]
        for number in range(given.rounds):
            for name in names[number % 3 :] + names[: number % 3]:
                times = ways[name].round(messages)
                if repeat:  # the first chat is a warm-up
                    spent[name][number].append(times)
            picture = rng.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)
            asked = CLOSE_UP.format(name=f"word{rng.integers(WORDS)}")
            messages += [Message(ASSISTANT, (RESPONSE, picture)), Message(USER, (asked,))]

    def middle(name: str, number: int, part: int) -> float:
        return statistics.median(times[part] for times in spent[name][number])

    table = Table("round", *(f"{name}: {what}" for name in names for what in ("first word", "all")))
    for number in range(given.rounds):
        cells = [f"{1e3 * middle(name, number, part):.0f} ms" for name in names for part in (0, 2)]
        table.add_row(str(number + 1), *cells)
    console.print(table)
    last = given.rounds - 1
    blocks = {name: statistics.median(t[1] for r in spent[name] for t in r) for name in ("ours", "forced")}
    figures = {
        "image_block_vs_forced": blocks["forced"] / blocks["ours"],
        "round8_over_round2": middle("ours", last, 2) / middle("ours", 1, 2),
        "cache_vs_recompute_round8": middle("recomputed", last, 2) / middle("ours", last, 2),
        "first_word_vs_recompute_round8": middle("recomputed", last, 0) / middle("ours", last, 0),
    }
    for name, (sign, bar) in BARS.items():
        holds = figures[name] >= bar if sign == "at least" else figures[name] <= bar
        console.print(
            f"  {name:<32} {figures[name]:>6.2f}   bar: {sign} {bar:g}   {'holds' if holds else 'missed'}"
        )
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
