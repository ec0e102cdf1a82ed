"""Low-rank tuning: what is trained, and that merging changes nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from visavis.models.lora import Lora
from visavis.models.mllm import Mllm, MllmConfig

SHAPE = MllmConfig(token_dim=8, image_tokens=4, connector_heads=2, view_positions=True)
IDS = torch.arange(12).view(2, 6)


@pytest.fixture
def mllm() -> Mllm:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    return Mllm(LlamaForCausalLM(config), SHAPE)


def tuned(mllm: Mllm) -> Lora:
    """Adapters after a step: every trained weight has moved."""
    lora = Lora(mllm, rank=3, alpha=6)
    with torch.no_grad():
        for parameter in mllm.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    mllm.eval()
    return lora


def test_adapters_norms_embeddings_and_connectors_learn(mllm: Mllm) -> None:
    Lora(mllm, rank=3)
    mllm.llm(input_ids=IDS, labels=IDS).loss.backward()
    for name, parameter in mllm.llm.named_parameters():
        whole = any(word in name for word in ("norm.", "layernorm.", "embed_tokens", "lm_head"))
        assert parameter.requires_grad == (whole or "lora_" in name), name
        assert (parameter.grad is None) == (not parameter.requires_grad), name
    adapted = {name.split(".")[-4] for name, _ in mllm.llm.named_parameters() if "lora_A" in name}
    assert adapted == {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    frozen = {name for name, p in mllm.connectors.named_parameters() if not p.requires_grad}
    assert frozen == {"input.pos_embed", "output.pos_embed"}


@torch.no_grad()
def test_a_new_adapter_changes_nothing(mllm: Mllm) -> None:
    before = mllm.eval().llm(IDS).logits
    Lora(mllm, rank=3)
    torch.testing.assert_close(mllm.eval().llm(IDS).logits, before)


@torch.no_grad()
def test_merged_weights_say_what_the_adapters_said_and_transformers_reads_them(
    mllm: Mllm, tmp_path: Path
) -> None:
    names = set(mllm.state_dict())
    lora = tuned(mllm)
    expected = mllm.llm(IDS).logits
    lora.merge(mllm)
    assert type(mllm.llm) is LlamaForCausalLM
    assert set(mllm.state_dict()) == names
    torch.testing.assert_close(mllm.llm(IDS).logits, expected, atol=1e-5, rtol=0)
    mllm.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path / "llm")
    torch.testing.assert_close(again(IDS).logits, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(Mllm.from_pretrained(tmp_path).llm(IDS).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("embeddings", [True, False])
@torch.no_grad()
def test_peft_reads_the_adapter(mllm: Mllm, tmp_path: Path, embeddings: bool) -> None:
    base = copy.deepcopy(mllm.llm)
    lora = Lora(mllm, rank=3, embeddings=embeddings)
    for parameter in mllm.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    lora.save_pretrained(tmp_path)
    expected = mllm.eval().llm(IDS).logits
    assert not torch.allclose(base.eval()(IDS).logits, expected, atol=1e-3)
    again = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    torch.testing.assert_close(again(input_ids=IDS).logits, expected, atol=1e-5, rtol=0)
