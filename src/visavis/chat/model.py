"""The model one talks to: MLLM, detokenizer, encoder and autoencoder put together."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from visavis.chat.layout import lay_out
from visavis.chat.memory import Memory, Store
from visavis.chat.reader import Reader
from visavis.chat.reading import Chat, Reading, without_pictures
from visavis.chat.template import VIEW_CLOSE, VIEW_OPEN, Template, user
from visavis.data.crops import resized
from visavis.files import read_json, write_json
from visavis.models.autoencoder import from_latents
from visavis.models.detokenizer import Detokenizer
from visavis.models.device import compute_device
from visavis.models.image_encoder import ImageEncoder, pool_tokens
from visavis.models.mllm import Mllm
from visavis.models.pixels import to_pictures, to_tensor
from visavis.packs import Pack, load_pack

MODEL_FILE = "model.json"
MLLM_FOLDER, DETOKENIZER_FOLDER = "mllm", "detokenizer"
MAX_WORDS = 96
_MOST_CHATS = 64
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
        fingerprint: Tells this model's memories from another's.
    """

    def __init__(
        self,
        mllm: Mllm,
        tokenizer: PreTrainedTokenizerBase,
        encoder: ImageEncoder,
        detokenizer: Detokenizer | None = None,
        autoencoder: Any = None,
        sample_steps: int = 4,
        fingerprint: str = "",
    ) -> None:
        self.device = compute_device()
        self.mllm = mllm.eval().to(self.device)
        self.encoder = encoder.to(self.device)
        self.detokenizer = detokenizer.eval().to(self.device) if detokenizer else None
        self.autoencoder = autoencoder.to(self.device) if autoencoder is not None else None
        self.sample_steps = sample_steps
        self.tokenizer = tokenizer
        self.template = Template(tokenizer, mllm.config.image_tokens, mllm.config.views)
        self.picture_size = encoder.config.image_size
        self.fingerprint = fingerprint
        # Room for an answer is left behind what is read.
        self.room = mllm.llm.config.max_position_embeddings - MAX_WORDS - mllm.config.image_tokens - 2
        tags = {
            *self.template.queries,
            self.template.image_close,
            tokenizer.bos_token_id,
            tokenizer.pad_token_id,
        }
        views = [tag for tag in (VIEW_OPEN, VIEW_CLOSE) if tag in tokenizer.get_vocab()]
        tags |= {tokenizer.convert_tokens_to_ids(tag) for tag in views}
        self.unsaid = sorted(tag for tag in tags if tag is not None)

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
            str(folder.resolve()),
        )
        model.template.check(folder / MLLM_FOLDER)
        return model

    @torch.no_grad()
    def encode(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Returns tokens `[n, 256, d]` of pictures of any size."""
        small = np.stack([resized(picture, self.picture_size) for picture in pictures])
        return self.encoder(to_tensor(small).to(self.device)).cpu().numpy()

    @torch.no_grad()
    def paint(
        self,
        tokens: NDArray[np.floating[Any]],
        seed: int | Sequence[int] = 0,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        watch: Callable[[int, Callable[[], list[Picture]]], bool] | None = None,
    ) -> list[Picture]:
        """Paints pictures from tokens `[n, T, d]`; the same seed gives the same picture, whatever is painted with it.

        Args:
            tokens: Of the pictures.
            seed: Of the noise, one for all or one for each.
            steps: Evaluations of the network; the model's own number if None.
            guidance: Scale of classifier-free guidance; the model's own if None.
            watch: Is called after each step with its number and a way to see the pictures as they are then; the
                painting ends where it returns False.
        """
        if self.detokenizer is None:
            raise ValueError("this model has no detokenizer: it answers in words only")
        read = torch.from_numpy(np.asarray(tokens, dtype=np.float32))
        wanted = self.detokenizer.config.image_tokens
        read = read if read.shape[1] == wanted else pool_tokens(read)

        def seen(number: int, latents: Tensor) -> bool:
            return watch is None or watch(number, lambda: list(decode_latents(self.autoencoder, latents)))

        latents = self.detokenizer.sample(
            read, steps or self.sample_steps, seed, guidance, watch=None if watch is None else seen
        )
        return list(decode_latents(self.autoencoder, latents))

    def ask(self, pictures: Sequence[Picture], question: str) -> list[str]:
        """Answers a question about each picture, in words."""
        answers: list[str] = []
        for start in range(0, len(pictures), _MOST_CHATS):
            tokens = self.encode(pictures[start : start + _MOST_CHATS])
            answers += [
                reply.text for reply in self.respond([Chat([user(0, question)], [t]) for t in tokens])
            ]
        return answers

    def respond(self, chats: Sequence[Chat], memories: Store[Memory] | None = None) -> list[Reply]:
        """Answers chats, those of about equal length together.

        Args:
            chats: They end with a user's turn, or with the model's own that is to go on.
            memories: Where to find what was read before, and to keep what is read now.

        Raises:
            VisavisError: If what is said in a chat is longer than the model can read.
        """
        readings = [Reading.of(chat, self.template, self.room, memories, self.fingerprint) for chat in chats]
        replies: dict[int, Reply] = {}
        order = sorted(range(len(chats)), key=lambda number: readings[number].count)
        for start in range(0, len(order), _MOST_CHATS):
            part = order[start : start + _MOST_CHATS]
            found = self._respond([chats[i] for i in part], [readings[i] for i in part], memories)
            replies |= dict(zip(part, found, strict=True))
        return [replies[number] for number in range(len(chats))]

    @torch.no_grad()
    def _respond(
        self, chats: list[Chat], readings: list[Reading], memories: Store[Memory] | None
    ) -> list[Reply]:
        """Answers one batch: one pass over what is new, then a word at a time for those that still speak."""
        reader = Reader(
            self.mllm,
            [reading.past for reading in readings],
            [lay_out(reading.new, self.template) for reading in readings],
            [reading.pictures for reading in readings],
        )
        if memories is not None:
            for row, reading in enumerate(readings):
                reading.keep(reader.memories(row, reading.ends), memories)
        words: list[list[int]] = [[] for _ in chats]
        images: list[NDArray[np.float32] | None] = [None] * len(chats)
        speaking = torch.ones(len(chats), dtype=torch.bool)
        luck = [torch.Generator().manual_seed(chat.seed) for chat in chats]
        queries = torch.tensor(self.template.queries)
        for _ in range(MAX_WORDS):
            scores = reader.scores().cpu()
            scores[:, self.unsaid] = -torch.inf
            chosen = scores.argmax(-1)
            for row, chat in enumerate(chats):
                if not speaking[row]:
                    continue
                if chat.temperature:
                    odds = (scores[row] / chat.temperature).softmax(-1)
                    chosen[row] = torch.multinomial(odds, 1, generator=luck[row])[0]
                if int(chosen[row]) in (self.template.eos, self.template.image_open):
                    speaking[row] = False
                    continue
                words[row].append(int(chosen[row]))
                if chat.hear is not None and not chat.hear(self._text(words[row])):
                    speaking[row] = False
                    chosen[row] = self.template.eos
            opens = (chosen == self.template.image_open) & torch.tensor([image is None for image in images])
            reader.say(chosen)
            if bool(opens.any()):
                written = reader.write_image(queries)
                for row in torch.nonzero(opens)[:, 0].tolist():
                    images[row] = self._weighed(written[row], chats[row], words[row]).cpu().numpy()
            if not bool(speaking.any()):
                break
        return [Reply(self._text(said), image) for said, image in zip(words, images, strict=True)]

    def _weighed(self, tokens: Tensor, chat: Chat, words: list[int]) -> Tensor:
        """Moves predicted tokens towards, or away from, those of the same chat in which no picture was shown."""
        if chat.identity == 1:
            return tokens
        told = Reading.of(without_pictures(chat), self.template, self.room, None, "")
        reader = Reader(self.mllm, [None], [lay_out(told.new, self.template)], [[]])
        for word in (*words, self.template.image_open):
            reader.say(torch.tensor([word]))
        blind = reader.write_image(torch.tensor(self.template.queries))[0]
        return blind + chat.identity * (tokens - blind)

    def _text(self, words: list[int]) -> str:
        text: str = self.tokenizer.decode(words, skip_special_tokens=True).strip()
        return text


@torch.no_grad()
def decode_latents(autoencoder: Any, latents: Tensor) -> Picture:
    """Decodes scaled latents `[B, C, h, w]` to uint8 pictures `[B, S, S, 3]`."""
    return to_pictures(from_latents(autoencoder, latents))


def write_model(folder: Path, mllm: Path, detokenizer: Path, pack: str, sample_steps: int) -> None:
    """Puts a model version together: the MLLM and the detokenizer copied, the pack by name."""
    for source, name in ((mllm, MLLM_FOLDER), (detokenizer, DETOKENIZER_FOLDER)):
        shutil.copytree(source, folder / name, dirs_exist_ok=True)
    write_json(folder / MODEL_FILE, {"pack": pack, "sample_steps": sample_steps})
