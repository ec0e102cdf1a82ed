"""The arithmetic of `visavis scale` against real steps of small models."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import LlamaConfig, LlamaForCausalLM

from visavis.launch.scale.costs import FLOAT32, llama_activations, round_tokens, state_memory
from visavis.launch.scale.shapes import Counts, connector_step, counts_of, encoder_cost, llm_cost, meta_mllm
from visavis.models.lora import Lora
from visavis.models.mllm import Mllm, MllmConfig
from visavis.training.config import LoraSettings

LLAMA = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 3, "num_attention_heads": 4}
AROUND = MllmConfig(token_dim=64, image_tokens=64, connector_heads=4, view_positions=True)
TOKENS = 256


def llama() -> LlamaConfig:
    return LlamaConfig(vocab_size=96, **LLAMA)


def real_mllm(rank: int) -> Mllm:
    model = Mllm(LlamaForCausalLM(llama()), AROUND).to(torch.bfloat16)
    if rank:
        Lora(model, rank)
    return model.to(torch.bfloat16).train()


def kept_by_a_real_step(model: Mllm, checkpointing: bool) -> int:
    if checkpointing:
        model.llm.activation_checkpointing_enable({"use_reentrant": False})
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    embeddings = torch.randn(1, TOKENS, 128, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool).tril()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model.llm.model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=torch.arange(TOKENS)[None],
            use_cache=False,
        )
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("rank", [0, 8])
def test_what_is_kept_is_what_a_real_step_keeps(rank: int) -> None:
    counted = llm_cost(meta_mllm(LoraSettings(rank=rank), AROUND, llama()), TOKENS)
    real = kept_by_a_real_step(real_mllm(rank), checkpointing=False)
    assert counted.held(False) == pytest.approx(real, rel=0.03)
    by_hand = llama_activations(128, 344, 3, 4, TOKENS, 2, rank)
    assert by_hand == pytest.approx(real, rel=0.03)
    checkpointed = kept_by_a_real_step(real_mllm(rank), checkpointing=True)
    assert counted.held_checkpointed == pytest.approx(checkpointed, rel=0.03)
    assert counted.held(True) < counted.held(False)


def test_operations_are_those_of_the_formula() -> None:
    model = meta_mllm(LoraSettings(), AROUND, llama())
    weights = sum(p.numel() for p in model.llm.model.layers.parameters() if p.ndim == 2)
    linear, attention = 2 * weights * TOKENS, 3 * 4 * 128 * TOKENS**2
    step = llm_cost(model, TOKENS).step
    assert step.forward == linear + attention
    assert step.backward == 2 * step.forward
    said = llm_cost(model, TOKENS, said=10).step
    assert said.forward - step.forward == 2 * 10 * 128 * 96


def test_frozen_linears_cost_no_gradient_of_their_weights() -> None:
    model = meta_mllm(LoraSettings(rank=8), AROUND, llama())
    layers = model.llm.model.layers
    frozen = sum(p.numel() for p in layers.parameters() if p.ndim == 2 and not p.requires_grad)
    adapters = sum(p.numel() for p in layers.parameters() if p.ndim == 2 and p.requires_grad)
    step = llm_cost(model, TOKENS).step
    attention = 3 * 4 * 128 * TOKENS**2
    assert step.forward == 2 * (frozen + adapters) * TOKENS + attention
    assert step.backward == pytest.approx(2 * (frozen + 2 * adapters) * TOKENS + 2 * attention, rel=0.01)


def test_bytes_of_a_real_step_with_adamw() -> None:
    model = real_mllm(rank=8).float()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    sum(parameter.square().sum() for parameter in trained).backward()  # type: ignore[union-attr]
    optimizer.step()
    memory = state_memory(counts_of(model), 0, 1, precision=FLOAT32)
    assert memory.weights == sum(parameter.nbytes for parameter in model.parameters())
    assert memory.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert memory.optimizer == sum(moment.nbytes for moment in moments)


def test_zero_divides_one_thing_after_the_other() -> None:
    counts = Counts(total=1000, trainable=100)
    stages = [state_memory(counts, zero, 4, gathered=50) for zero in range(4)]
    assert [memory.optimizer for memory in stages] == [1200, 300, 300, 300]
    assert [memory.gradients for memory in stages] == [200, 200, 50, 50]
    assert [memory.weights for memory in stages] == [2000, 2000, 2000, 500]
    assert [memory.gathered for memory in stages] == [0, 0, 0, 100]


def test_published_sizes() -> None:
    counts = counts_of(meta_mllm(LoraSettings(rank=32), MllmConfig(view_positions=True)))
    assert counts.total == pytest.approx(13.36e9, rel=0.01)
    assert counts.trainable == pytest.approx(0.67e9, rel=0.01)
    encoder, step = encoder_cost()
    assert encoder.total == pytest.approx(1.93e9, rel=0.01)
    assert step.forward == pytest.approx(4.2e12, rel=0.05)


def test_a_chat_of_three_rounds_has_as_many_tokens_as_it_is_laid_out_with() -> None:
    assert round_tokens(40, 1, 3) == 3 * (40 + 66 + 66)
    assert round_tokens(40, 2) == 40 + 3 * 66


def test_connectors_train_as_a_whole() -> None:
    step = connector_step(meta_mllm(LoraSettings(), AROUND, llama()))
    assert step.backward == pytest.approx(2 * step.forward, rel=0.1)
