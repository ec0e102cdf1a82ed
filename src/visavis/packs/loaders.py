"""Loaders of the parts of a pack: each is a thin call of the part's own library.

Weights lie on disk in fp16 safetensors and are read as float32 unless another `dtype` is asked for. Libraries
are imported inside the loaders, so that a process pays only for the parts it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visavis.errors import VisavisError
from visavis.packs.manifest import Pack

if TYPE_CHECKING:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, ModelMixin
    from insightface.app import FaceAnalysis
    from segment_anything import SamPredictor
    from transformers import CLIPModel, CLIPProcessor, PreTrainedTokenizerBase

    from visavis.models.denoisers import Denoiser
    from visavis.models.image_encoder import ImageEncoder
    from visavis.models.mllm import Mllm


def load_faces(pack: Pack) -> FaceAnalysis:
    """Returns the face detector and recogniser; `get(image)` takes uint8 [H, W, 3] in BGR."""
    from visavis.packs import face_parts

    return face_parts.load_faces(pack.part("faces"), pack.settings("faces"))


def load_segmenter(pack: Pack, *, device: str = "cpu") -> SamPredictor:
    """Returns the promptable segmenter; `set_image` takes uint8 [H, W, 3] in RGB."""
    from visavis.packs import face_parts

    return face_parts.load_segmenter(pack.part("segmenter"), device)


def load_clip(pack: Pack, *, dtype: torch.dtype | None = None) -> tuple[CLIPModel, CLIPProcessor]:
    """Returns the CLIP model in evaluation mode and its processor of pictures and words."""
    from transformers import CLIPModel, CLIPProcessor

    path = pack.part("clip")
    model = CLIPModel.from_pretrained(path, dtype=_float(dtype), use_safetensors=True)
    return model.eval(), CLIPProcessor.from_pretrained(path)


def load_image_encoder(pack: Pack, *, dtype: torch.dtype | None = None) -> ImageEncoder:
    """Returns the frozen image encoder: [B, 3, H, W] in [-1, 1] to [B, 256, width]."""
    from visavis.models.image_encoder import ImageEncoder

    return ImageEncoder.from_pretrained(pack.part("image_encoder")).to(_float(dtype)).eval()


def load_mllm(pack: Pack, *, dtype: torch.dtype | None = None) -> tuple[Mllm, PreTrainedTokenizerBase]:
    """Returns the multimodal language model (the LLM with its connectors) and its tokenizer.

    Raises:
        VisavisError: If the tokenizer has more words than the LLM has rows.
    """
    from transformers import AutoTokenizer

    from visavis.models.mllm import Mllm

    path = pack.part("mllm")
    model, tokenizer = (
        Mllm.from_pretrained(path).to(_float(dtype)).eval(),
        AutoTokenizer.from_pretrained(path),
    )
    if len(tokenizer) > (rows := model.llm.config.vocab_size):
        raise VisavisError(
            f"pack {pack.manifest.name!r}: the tokenizer of mllm has {len(tokenizer)} words,"
            f" but the LLM rows for {rows}",
            fix="put the tokenizer that belongs to the LLM into the pack, or extend the LLM by `extend_vocabulary`",
        )
    return model, tokenizer


def load_autoencoder(pack: Pack, *, dtype: torch.dtype | None = None) -> ModelMixin:
    """Returns the autoencoder (an `AutoencoderDC` or `AutoencoderKL`, as its config says).

    Latents are `model.encode(pictures)` times `model.config.scaling_factor`.

    Raises:
        VisavisError: If diffusers has no such autoencoder.
    """
    import diffusers  # its AutoModel would load every kind of pipeline, for a second

    from visavis.models.checkpoint import load_config

    path = pack.part("vae")
    name = str(load_config(path).get("_class_name", ""))
    kind = getattr(diffusers, name, None) if name.startswith("Autoencoder") else None
    if kind is None:
        raise VisavisError(
            f"{path}: _class_name is {name!r}, which is no autoencoder of diffusers",
            fix="use one that `save_pretrained` of diffusers wrote, such as an AutoencoderKL",
        )
    autoencoder: ModelMixin = kind.from_pretrained(
        path, torch_dtype=_float(dtype), use_safetensors=True, low_cpu_mem_usage=False
    )
    return autoencoder.eval()


def load_text_to_image(
    pack: Pack, *, dtype: torch.dtype | None = None
) -> tuple[Denoiser, FlowMatchEulerDiscreteScheduler]:
    """Returns the text-to-image network, of the class that its config names, and a flow-matching scheduler.

    A network that was published with another scheduler gets a flow-matching one: the detokenizer is tuned by it.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    from visavis.models.denoisers import load_denoiser

    path = pack.part("text_to_image")
    denoiser = load_denoiser(path / "denoiser", _float(dtype))
    facts = FlowMatchEulerDiscreteScheduler.load_config(path / "scheduler")
    flows = facts.get("_class_name") == FlowMatchEulerDiscreteScheduler.__name__
    scheduler = (
        FlowMatchEulerDiscreteScheduler.from_config(facts) if flows else FlowMatchEulerDiscreteScheduler()
    )
    return denoiser.eval(), scheduler


def _float(dtype: torch.dtype | None) -> torch.dtype:
    import torch

    return torch.float32 if dtype is None else dtype
