"""What a recipe changes about an MLLM before it is tuned: the loss, how pictures are read, which weights learn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from visavis.errors import VisavisError
from visavis.models.connectors import input_connector
from visavis.models.mllm import Mllm
from visavis.training.config import LoraSettings, MllmModelConfig

if TYPE_CHECKING:
    from visavis.models.lora import Lora

INPUT = "input connector"


def prepare(model: Mllm, config: MllmModelConfig, stored_tokens: int, *, first: bool, seed: int) -> list[str]:
    """Changes a model in place as a recipe says.

    Args:
        model: From the pack, or from the stage before.
        config: What to change.
        stored_tokens: Tokens of a picture in the token store.
        first: Whether this is the first stage, in which a new connector begins.
        seed: Seed of new weights.

    Returns:
        What begins untrained.

    Raises:
        VisavisError: If the store holds pooled tokens, which a resampler cannot read, or a frozen LLaMA is to get
            adapters.
    """
    if config.freeze_llm and config.lora.rank:
        raise VisavisError(
            f"mllm_model.freeze_llm=true leaves nothing to mllm_model.lora.rank={config.lora.rank}",
            fix="set mllm_model.lora.rank=0, or mllm_model.freeze_llm=false",
        )
    wanted = config.input_connector or model.config.input_connector
    if wanted == "resampler" and stored_tokens == model.config.image_tokens:
        raise VisavisError(
            f"mllm_model.input_connector is resampler, but the store holds {stored_tokens} pooled tokens a picture",
            fix="set encode.pooled=false, so that all tokens are stored",
        )
    fresh = []
    if wanted != model.config.input_connector or (config.new_input_connector and first):
        torch.manual_seed(seed)
        shape = model.config
        model.connectors["input"] = input_connector(
            wanted, shape.token_dim, shape.image_tokens, model.llm.config.hidden_size, shape.connector_heads
        )
        fresh.append(INPUT)
    regression = config.regression or model.config.regression
    views = config.views or model.config.views
    model.config = replace(model.config, input_connector=wanted, regression=regression, views=views)
    model.llm.requires_grad_(not config.freeze_llm)
    return fresh


def lora_of(model: Mllm, settings: LoraSettings, seed: int) -> Lora | None:
    """Puts low-rank adapters, drawn from a seed, into the LLaMA if the recipe asks for some."""
    if not settings.rank:
        return None
    torch.manual_seed(seed)
    from visavis.models.lora import Lora

    return Lora(model, settings.rank, settings.alpha, settings.dropout, embeddings=settings.embeddings)
