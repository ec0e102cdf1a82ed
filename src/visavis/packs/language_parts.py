"""Loaders of the language parts of a pack: a chat model that names people, and one that looks at pictures.

Both are plain transformers folders. They are greedy: equal input gives equal words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visavis.errors import VisavisError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

_SETTINGS = frozenset({"dtype", "max_new_tokens"})
_BATCH = 8


class ChatWriter:
    """Continues chats with a causal language model and its tokenizer's own chat template.

    Args:
        model: A `transformers` causal language model.
        tokenizer: Its tokenizer; has a chat template.
        max_new_tokens: Longest answer.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int
    ) -> None:
        self.model, self.tokenizer, self.max_new_tokens = model.eval(), tokenizer, max_new_tokens

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Answers a chat of `{"role", "content"}` messages that ends with the user's."""
        inputs = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.model.device)
        words = _continued(self.model, inputs, self.max_new_tokens, self.tokenizer)
        return str(self.tokenizer.decode(words[0], skip_special_tokens=True)).strip()


class PictureTalker:
    """Answers questions about pictures with a vision-language model.

    Args:
        model: A `transformers` image-text-to-text model.
        processor: Its processor; has a chat template.
        max_new_tokens: Longest answer.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, max_new_tokens: int) -> None:
        self.model, self.processor, self.max_new_tokens = model.eval(), processor, max_new_tokens
        # Answers begin where the padding of a batch would stand if it were on the right.
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token

    def __call__(self, pictures: list[NDArray[np.uint8]], question: str) -> list[str]:
        """Answers one question about each picture, uint8 RGB [H, W, 3]."""
        answers: list[str] = []
        for start in range(0, len(pictures), _BATCH):
            answers += self._answered(pictures[start : start + _BATCH], question)
        return answers

    def _answered(self, pictures: list[NDArray[np.uint8]], question: str) -> list[str]:
        from PIL import Image

        content = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        inputs = self.processor(
            images=[[Image.fromarray(picture)] for picture in pictures],
            text=[prompt] * len(pictures),
            padding=True,
            return_tensors="pt",
        ).to(self.model.device, dtype=self.model.dtype)
        words = _continued(self.model, inputs, self.max_new_tokens, self.processor.tokenizer)
        said: list[str] = self.processor.batch_decode(words, skip_special_tokens=True)
        return [text.strip() for text in said]


def load_namer(root: Path, settings: Mapping[str, Any], *, device: str | None = None) -> ChatWriter:
    """Opens the chat model that names people (paper, section 3.3.2: LLaMA-3).

    Args:
        root: Folder of the part: an `AutoModelForCausalLM` with safetensors, and its tokenizer.
        settings: `dtype` (default `float32`) and `max_new_tokens` (default 256).
        device: Where the model computes; by default on the GPU if there is one.

    Raises:
        VisavisError: If a setting is unknown or wrong, or the tokenizer has no chat template.
    """
    dtype, longest = _checked("namer", settings, 256)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root)
    _has_template("namer", root, tokenizer)
    model = AutoModelForCausalLM.from_pretrained(root, dtype=dtype, use_safetensors=True)
    return ChatWriter(model.to(_device(device)), tokenizer, longest)


def load_captioner(root: Path, settings: Mapping[str, Any], *, device: str | None = None) -> PictureTalker:
    """Opens the vision-language model that describes people and places.

    Args:
        root: Folder of the part: an `AutoModelForImageTextToText` with safetensors, and its processor.
        settings: `dtype` (default `float32`) and `max_new_tokens` (default 64).
        device: Where the model computes; by default on the GPU if there is one.

    Raises:
        VisavisError: If a setting is unknown or wrong, or the processor has no chat template.
    """
    dtype, longest = _checked("captioner", settings, 64)
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(root)
    _has_template("captioner", root, processor)
    model = AutoModelForImageTextToText.from_pretrained(root, dtype=dtype, use_safetensors=True)
    return PictureTalker(model.to(_device(device)), processor, longest)


def _continued(model: Any, inputs: Any, longest: int, tokenizer: Any) -> torch.Tensor:
    """Returns the ids [B, n] that a model says after its input."""
    import torch

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.inference_mode():
        # Settings that only sampling reads, and that many folders carry, are taken out: they would only warn.
        ids: torch.Tensor = model.generate(
            **inputs,
            max_new_tokens=longest,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
        )
    return ids[:, inputs["input_ids"].shape[1] :]


def _checked(part: str, settings: Mapping[str, Any], longest: int) -> tuple[torch.dtype, int]:
    import torch

    if unknown := sorted(set(settings) - _SETTINGS):
        raise VisavisError(
            f"{part}: settings.{unknown[0]} is unknown", fix=f"known settings: {', '.join(sorted(_SETTINGS))}"
        )
    name, longest = settings.get("dtype", "float32"), settings.get("max_new_tokens", longest)
    dtype = getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise VisavisError(f"{part}: settings.dtype is {name!r}", fix="give float32, bfloat16 or float16")
    if not isinstance(longest, int) or longest < 1:
        raise VisavisError(
            f"{part}: settings.max_new_tokens is {longest!r}", fix="give a whole number above 0"
        )
    return dtype, longest


def _has_template(part: str, root: Path, speaker: Any) -> None:
    if not getattr(speaker, "chat_template", None):
        raise VisavisError(
            f"{part}: {root} has no chat template, so it is not known how to talk to the model",
            fix="take an instruction-tuned model, or save its chat_template.jinja beside the weights",
        )


def _device(wanted: str | None) -> str:
    import torch

    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")
