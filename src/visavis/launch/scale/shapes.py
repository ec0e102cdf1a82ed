"""The models of the paper's scale, built without weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel, SanaTransformer2DModel
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from visavis.launch.scale.counting import Step, count_call, count_step, held_bytes
from visavis.models.image_encoder import ImageEncoder, ImageEncoderConfig
from visavis.models.lora import Lora
from visavis.models.mllm import Mllm, MllmConfig
from visavis.training.config import LoraSettings

LLAMA_2_13B = {
    "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40,
    "vocab_size": 32330,
}  # fmt: skip
"""SEED-X's LLaMA: LLaMA-2-13B with 330 more words."""
PIXART = {"caption_channels": 4096, "sample_size": 64, "use_additional_conditions": False}
"""PixArt for 512 px: 4 x 64 x 64 latents of an f8 autoencoder, patches of 2, condition of 4096 channels."""
SANA = {"caption_channels": 2304, "sample_size": 16}
"""SANA 1.6B for 512 px: 32 x 16 x 16 latents of an f32 autoencoder."""
TOKENS = 64


@dataclass(frozen=True)
class Counts:
    """Parameters of a model."""

    total: int
    trainable: int

    @property
    def frozen(self) -> int:
        """Parameters that no gradient reaches."""
        return self.total - self.trainable


def counts_of(module: nn.Module) -> Counts:
    """Counts the parameters of a module."""
    parameters = list(module.parameters())
    return Counts(
        sum(parameter.numel() for parameter in parameters),
        sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    )


def meta_mllm(lora: LoraSettings, config: MllmConfig, llama: LlamaConfig | None = None) -> Mllm:
    """Builds the MLLM in bfloat16 on the meta device, with adapters if their rank is above 0."""
    with torch.device("meta"):
        model = Mllm(LlamaForCausalLM(llama or LlamaConfig(**LLAMA_2_13B)), config).to(torch.bfloat16)
        if lora.rank:
            Lora(model, lora.rank, lora.alpha, lora.dropout, embeddings=lora.embeddings)
    return model.to(torch.bfloat16).train()


@dataclass(frozen=True)
class Cost:
    """One row or picture.

    Attributes:
        step: Its operations, and the bytes kept without checkpointing.
        held_checkpointed: The bytes kept where every layer keeps its input only.
        layer_held: The bytes of the one layer that is computed again.
    """

    step: Step
    held_checkpointed: int
    layer_held: float

    def operations(self, checkpointing: bool) -> int:
        """Returns the operations of a step; checkpointing computes the forward pass twice."""
        return self.step.total + (self.step.forward if checkpointing else 0)

    def held(self, checkpointing: bool) -> float:
        """Returns the most bytes that are kept at a time."""
        return self.held_checkpointed + self.layer_held if checkpointing else float(self.step.held)


def llm_cost(model: Mllm, tokens: int, said: int = 0) -> Cost:
    """Counts one row of `tokens` through the LLaMA; `said` of them reach the vocabulary."""
    llm = model.llm
    weight = next(model.parameters())
    kind: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
    embeddings = torch.empty(1, tokens, llm.config.hidden_size, requires_grad=True, **kind)
    positions = torch.zeros(1, tokens, dtype=torch.long, device=weight.device)
    mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=weight.device)

    def call() -> Tensor:
        hidden: Tensor = llm.model(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        if said:
            return hidden.sum() + llm.lm_head(hidden[:, :said]).float().logsumexp(dim=-1).sum()
        return hidden

    step = count_step(call, model.parameters())
    llm.activation_checkpointing_enable({"use_reentrant": False})
    kept = held_bytes(call, model.parameters())
    llm.activation_checkpointing_disable()
    return Cost(step, kept, step.held / llm.config.num_hidden_layers)


def connector_step(model: Mllm) -> Step:
    """Counts reading and writing one picture."""
    config = model.config
    weight = next(model.parameters())
    kind: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device, "requires_grad": True}
    picture = torch.empty(1, 4 * config.image_tokens, config.token_dim, **kind)
    states = torch.empty(1, config.image_tokens, model.llm.config.hidden_size, **kind)
    parts = model.connectors
    return count_step(
        lambda: parts["input"](picture).sum() + parts["output"](states).sum(), model.parameters()
    )


@lru_cache(maxsize=1)
def encoder_cost() -> tuple[Counts, Step]:
    """Counts Qwen-VL's ViT for one picture of 448 px."""
    with torch.device("meta"):
        encoder = ImageEncoder(ImageEncoderConfig()).requires_grad_(False).to(torch.bfloat16)
        picture = torch.empty(1, 3, 448, 448, dtype=torch.bfloat16)
    return counts_of(encoder), count_call(lambda: encoder(picture))


@lru_cache(maxsize=4)
def denoiser_cost(name: str) -> tuple[Counts, Cost]:
    """Counts a denoiser of latents of 512 px, `pixart` or `sana`, for one picture."""
    with torch.device("meta"):
        model = PixArtTransformer2DModel(**PIXART) if name == "pixart" else SanaTransformer2DModel(**SANA)
        # Not diffusers' own `to`, which warns of what it keeps in float32 when it loads weights.
        model = nn.Module.to(model, torch.bfloat16).train()
        side, channels = model.config.sample_size, model.config.in_channels
        latent = torch.empty(1, channels, side, side, dtype=torch.bfloat16, requires_grad=True)
        condition = torch.empty(1, TOKENS, model.config.caption_channels, dtype=torch.bfloat16)
        time = torch.zeros(1)
    extra = {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}} if name == "pixart" else {}

    def call() -> Tensor:
        painted: Tensor = model(latent, encoder_hidden_states=condition, timestep=time, **extra).sample
        return painted

    plain = count_step(call, model.parameters())
    # Not as counted: the library's counter takes SANA's grouped convolutions for full ones in the backward pass.
    step = Step(plain.forward, 2 * plain.forward, plain.held)
    model.enable_gradient_checkpointing()
    kept = held_bytes(call, model.parameters())
    return counts_of(model), Cost(step, kept, step.held / model.config.num_layers)
