"""The model one talks to: MLLM, detokenizer, encoder and autoencoder put together."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, DynamicCache, PreTrainedTokenizerBase

from visavis.chat.layout import Layout, collate, lay_out
from visavis.chat.template import ImageSegment, Segment, Template, Turn, user
from visavis.data.crops import resized
from visavis.files import read_json, write_json
from visavis.models.autoencoder import from_latents
from visavis.models.detokenizer import Detokenizer
from visavis.models.image_encoder import ImageEncoder, pool_tokens
from visavis.models.mllm import Mllm
from visavis.models.pixels import to_pictures, to_tensor
from visavis.packs import Pack, load_pack

MODEL_FILE = "model.json"
MLLM_FOLDER, DETOKENIZER_FOLDER = "mllm", "detokenizer"
_MAX_WORDS = 48
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Reply:
    """What the model answers: words, and the tokens `[image_tokens, d]` of a picture if it made one."""

    text: str
    tokens: NDArray[np.float32] | None


class ChatModel:
    """Answers conversations with words and pictures.

    Args:
        mllm: The conversational model.
        tokenizer: Its tokenizer.
        encoder: Reads pictures.
        detokenizer: Paints latents; None for a model that only answers in words.
        autoencoder: Turns latents into pixels; needed to paint.
        sample_steps: Euler steps of a picture.
    """

    def __init__(
        self,
        mllm: Mllm,
        tokenizer: PreTrainedTokenizerBase,
        encoder: ImageEncoder,
        detokenizer: Detokenizer | None = None,
        autoencoder: Any = None,
        sample_steps: int = 4,
    ) -> None:
        self.mllm = mllm.eval()
        self.encoder = encoder
        self.detokenizer = detokenizer.eval() if detokenizer else None
        self.autoencoder = autoencoder
        self.sample_steps = sample_steps
        self.tokenizer = tokenizer
        self.template = Template(tokenizer, mllm.config.image_tokens, mllm.config.views)
        self.picture_size = encoder.config.image_size

    @classmethod
    def from_pack(cls, pack: Pack) -> ChatModel:
        """Loads the pretrained model of a pack; it answers in words."""
        from visavis.packs.loaders import load_image_encoder, load_mllm

        mllm, tokenizer = load_mllm(pack)
        return cls(mllm, tokenizer, load_image_encoder(pack))

    @classmethod
    def from_pretrained(cls, folder: Path) -> ChatModel:
        """Loads a model version: a folder written by `write_model`."""
        from visavis.packs.loaders import load_autoencoder, load_image_encoder

        facts = read_json(folder / MODEL_FILE)
        pack = load_pack(facts["pack"])
        model = cls(
            Mllm.from_pretrained(folder / MLLM_FOLDER),
            AutoTokenizer.from_pretrained(folder / MLLM_FOLDER),
            load_image_encoder(pack),
            Detokenizer.from_pretrained(folder / DETOKENIZER_FOLDER),
            load_autoencoder(pack),
            facts["sample_steps"],
        )
        model.template.check(folder / MLLM_FOLDER)
        return model

    @torch.no_grad()
    def encode(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Returns tokens `[n, 256, d]` of pictures of any size."""
        small = np.stack([resized(picture, self.picture_size) for picture in pictures])
        return self.encoder(to_tensor(small)).numpy()

    @torch.no_grad()
    def paint(self, tokens: NDArray[np.floating[Any]], seed: int = 0) -> list[Picture]:
        """Paints pictures from tokens `[n, T, d]`; the same seed gives the same pictures."""
        if self.detokenizer is None:
            raise ValueError("this model has no detokenizer: it answers in words only")
        read = torch.from_numpy(np.asarray(tokens, dtype=np.float32))
        wanted = self.detokenizer.config.image_tokens
        read = read if read.shape[1] == wanted else pool_tokens(read)
        return list(decode_latents(self.autoencoder, self.detokenizer.sample(read, self.sample_steps, seed)))

    def ask(self, pictures: Sequence[Picture], question: str) -> list[str]:
        """Answers a question about each picture, in words."""
        answers: list[str] = []
        for start in range(0, len(pictures), 64):
            part = pictures[start : start + 64]
            tokens = self.encode(part)
            turns = [[user(0, question)]] * len(part)
            answers += [reply.text for reply in self.respond(turns, [[row] for row in tokens])]
        return answers

    def respond(
        self, chats: list[list[Turn]], pictures: list[list[NDArray[np.floating[Any]]]]
    ) -> list[Reply]:
        """Answers chats that end with a user turn, greedily.

        Args:
            chats: Turns of each chat.
            pictures: Tokens `[T, d]` of each chat's pictures, by number.
        """
        layouts = []
        for turns in chats:
            segments = self.template.segments(turns, end=False)
            layouts.append(lay_out([_read_only(segment) for segment in segments], self.template))
        replies: list[Reply | None] = [None] * len(chats)
        groups: dict[int, list[int]] = {}
        for number, layout in enumerate(layouts):
            groups.setdefault(len(layout), []).append(number)
        for members in groups.values():
            answered = self._respond_alike([layouts[i] for i in members], [pictures[i] for i in members])
            for number, reply in zip(members, answered, strict=True):
                replies[number] = reply
        return [reply for reply in replies if reply is not None]

    @torch.no_grad()
    def _respond_alike(self, layouts: list[Layout], pictures: list[list[Any]]) -> list[Reply]:
        """Answers chats of equal length: one prefill, then a word at a time for those that still speak."""
        count = len(layouts)
        image_tokens = self.mllm.config.image_tokens
        batch = collate(layouts, pictures, image_tokens, [[1.0] * len(group) for group in pictures])
        walker = _Walker(self.mllm, batch)
        words: list[list[int]] = [[] for _ in range(count)]
        images: list[NDArray[np.float32] | None] = [None] * count
        speaking = torch.ones(count, dtype=torch.bool)
        for _ in range(_MAX_WORDS):
            chosen = walker.next_word()
            for row in range(count):
                if not speaking[row]:
                    continue
                if int(chosen[row]) in (self.template.eos, self.template.image_open):
                    speaking[row] = False
                else:
                    words[row].append(int(chosen[row]))
            opens = chosen == self.template.image_open
            fresh = opens & torch.tensor([image is None for image in images])
            walker.say(chosen)
            if bool(fresh.any()):
                painted = walker.write_image(torch.tensor(self.template.queries))
                for row in torch.nonzero(fresh)[:, 0].tolist():
                    images[row] = painted[row].numpy()
            if not bool(speaking.any()):
                break
        return [
            Reply(self.tokenizer.decode(said, skip_special_tokens=True).strip(), image)
            for said, image in zip(words, images, strict=True)
        ]


class _Walker:
    """Walks a batch of equally long chats forward with a key-value cache."""

    def __init__(self, mllm: Mllm, batch: Any) -> None:
        self.mllm = mllm
        self.cache = DynamicCache()
        shift = mllm.connectors["shift"] if "shift" in mllm.connectors else None  # noqa: SIM401 - ModuleDict has no get
        self.shift = shift
        self.taps = mllm.config.token_shift or 1
        self.position = int(batch.position_ids[0, -1]) + 1
        self.recent = mllm.embed_unshifted(batch)
        embeddings = shift(self.recent, batch.previous) if shift is not None else self.recent
        self.hidden = self._run(embeddings, batch.position_ids)[:, -1]

    def _run(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        output = self.mllm.llm.model(
            inputs_embeds=embeddings, position_ids=positions, past_key_values=self.cache, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _embed(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds new words `[B, n]` with the token shift over what came before; also returns the raw history."""
        raw = torch.cat([self.recent, self.mllm.llm.get_input_embeddings()(ids)], dim=1)
        if self.shift is None:
            return raw[:, -ids.shape[1] :], raw
        chain = torch.arange(-1, raw.shape[1] - 1).expand(len(ids), -1)
        return self.shift(raw, chain)[:, -ids.shape[1] :], raw

    def next_word(self) -> Tensor:
        """Returns the most likely next word of each chat, `[B]`."""
        return self.mllm.llm.lm_head(self.hidden).argmax(-1)

    def say(self, ids: Tensor) -> None:
        """Appends one word `[B]` to each chat."""
        embeddings, raw = self._embed(ids[:, None])
        self.recent = raw[:, -self.taps :]
        positions = torch.full((len(ids), 1), self.position)
        self.hidden = self._run(embeddings, positions)[:, -1]
        self.position += 1

    def write_image(self, queries: Tensor) -> Tensor:
        """Predicts image tokens `[B, image_tokens, d]` in one pass; the queries leave no trace in the cache."""
        batch = len(self.hidden)
        embeddings, _ = self._embed(queries.expand(batch, -1))
        positions = torch.arange(self.position, self.position + len(queries)).expand(batch, -1)
        hidden = self._run(embeddings, positions)
        self.cache.crop(-len(queries))
        tokens: Tensor = self.mllm.connectors["output"](hidden)
        return tokens


def _read_only(segment: Segment) -> Segment:
    """An image of an earlier answer is read, not written again."""
    return ImageSegment(segment.picture, False) if isinstance(segment, ImageSegment) else segment


@torch.no_grad()
def decode_latents(autoencoder: Any, latents: Tensor) -> Picture:
    """Decodes scaled latents `[B, C, h, w]` to uint8 pictures `[B, S, S, 3]`."""
    return to_pictures(from_latents(autoencoder, latents))


def write_model(folder: Path, mllm: Path, detokenizer: Path, pack: str, sample_steps: int) -> None:
    """Puts a model version together: the MLLM and the detokenizer copied, the pack by name."""
    for source, name in ((mllm, MLLM_FOLDER), (detokenizer, DETOKENIZER_FOLDER)):
        shutil.copytree(source, folder / name, dirs_exist_ok=True)
    write_json(folder / MODEL_FILE, {"pack": pack, "sample_steps": sample_steps})
