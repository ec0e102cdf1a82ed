"""Low-rank tuning of the LLaMA by peft; merged back into plain weights when it is done.

Source: SEED-X `configs/clm_models/llm_seed_x_lora.yaml`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from peft import LoraConfig, LoraModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from visavis.models.mllm import Mllm

ADAPTER = "default"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EMBEDDINGS = ("embed_tokens", "lm_head")
NORMS = ("input_layernorm", "post_attention_layernorm", "norm")


class Lora:
    """Low-rank adapters inside the LLaMA of an MLLM.

    The LLaMA's own weights are frozen but for its norms and both embeddings; the connectors stay trainable.

    Args:
        mllm: Changed in place.
        rank: Rank of the adapters.
        alpha: Scale: the update is `alpha / rank * B @ A`.
        dropout: Dropout on the adapters' input.
        targets: Names of the layers that get one.
        norms: Names of the norms that are trained as a whole.
        embeddings: Whether input and output embeddings are trained as a whole.
    """

    def __init__(
        self,
        mllm: Mllm,
        rank: int = 32,
        alpha: int = 32,
        dropout: float = 0.05,
        targets: Sequence[str] = TARGETS,
        norms: Sequence[str] = NORMS,
        embeddings: bool = True,
    ) -> None:
        self.config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=list(targets),
            task_type="CAUSAL_LM",
        )
        mllm.llm.requires_grad_(False)
        self._tuner = LoraModel(mllm.llm, self.config, ADAPTER)
        # Trained in place: peft's `modules_to_save` would keep a second copy of both embeddings.
        self._whole_names = [*norms, *(EMBEDDINGS if embeddings else ())]
        self._whole = {
            name: module
            for name, module in mllm.llm.named_modules()
            if name.rpartition(".")[2] in self._whole_names
        }
        for module in self._whole.values():
            module.requires_grad_(True)

    def save_pretrained(self, folder: Path) -> None:
        """Writes the adapters and what is trained as a whole, in peft's layout (`PeftModel.from_pretrained`)."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            f"base_model.{name}": tensor
            for name, tensor in get_peft_model_state_dict(self._tuner, adapter_name=ADAPTER).items()
        }
        for place, module in self._whole.items():
            state |= {
                f"base_model.model.{place}.{name}": value for name, value in module.state_dict().items()
            }
        weights = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
        save_file(weights, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        config = copy.copy(self.config)
        config.modules_to_save = self._whole_names
        config.save_pretrained(str(folder))

    def merge(self, mllm: Mllm) -> None:
        """Adds the adapters to the weights they adapt; the LLaMA is transformers' own class again."""
        merged = self._tuner.merge_and_unload()
        assert isinstance(merged, LlamaForCausalLM)
        mllm.llm = merged.requires_grad_(True)
