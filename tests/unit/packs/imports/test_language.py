"""SEED-X's LLaMA and agent become the part `mllm`, low-rank updates included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from published import WORDS, agent, llama_config, save, save_llama, save_tokenizer, state
from torch import Tensor
from transformers import LlamaForCausalLM

from visavis.errors import VisavisError
from visavis.packs import load_pack
from visavis.packs.imports import ImportOptions, find_sources, import_pack
from visavis.packs.loaders import load_mllm

PEFT = "llm.base_model.model."


def rows_of(pack: Path) -> dict[str, dict[str, object]]:
    rows = json.loads((pack / "import-report.json").read_text())["tensors"]
    return {row["source"]: row for row in rows}


@pytest.mark.parametrize("torch_files", [False, True])
def test_a_merged_agent_and_its_llama(tmp_path: Path, torch_files: bool) -> None:
    llama = save_llama(tmp_path / "in" / "llm", sharded=not torch_files, torch_files=torch_files)
    tensors = agent()
    save(
        tmp_path / "in" / "agent" / "pytorch_model.bin",
        tensors | {"llm.model.rotary_emb.inv_freq": torch.zeros(4)},
    )
    import_pack(find_sources(tmp_path / "in"), tmp_path / "pack", ImportOptions())
    pack = load_pack(tmp_path / "pack")
    pack.verify()
    mllm, tokenizer = load_mllm(pack)
    assert len(tokenizer) == len(WORDS) and tokenizer.convert_tokens_to_ids("<img_00063>") == len(WORDS) - 1
    for name, tensor in llama.state_dict().items():
        torch.testing.assert_close(mllm.llm.state_dict()[name], tensor)
    connectors = mllm.connectors.state_dict()
    assert torch.equal(connectors["input.kv_proj.weight"], tensors["input_resampler.kv_proj.weight"])
    assert torch.equal(connectors["output.query"], tensors["output_resampler.query"])
    assert torch.equal(connectors["view.embed"], tensors["patch_pos_embed"]) and mllm.config.views == 2
    assert mllm.connectors["input"](torch.zeros(1, 256, 256)).shape == (1, 64, 320)
    assert "computed" in str(rows_of(tmp_path / "pack")["llm.model.rotary_emb.inv_freq"]["reason"])


def tuned(llama: LlamaForCausalLM, rank: int = 4) -> dict[str, Tensor]:
    """What peft's names of an agent look like that was tuned on top of a LLaMA with fewer words."""
    tensors: dict[str, Tensor] = {}
    for layer in range(2):
        module = f"{PEFT}model.layers.{layer}."
        shapes = {f"{module}self_attn.q_proj.lora_A.default.weight": (rank, 320)}
        shapes |= {f"{module}self_attn.q_proj.lora_B.default.weight": (320, rank)}
        shapes |= {f"{module}input_layernorm.modules_to_save.default.weight": (320,)}
        shapes |= {f"{module}input_layernorm.original_module.weight": (320,)}
        tensors |= state(shapes, seed=layer)
    shapes = {f"{PEFT}model.embed_tokens.weight": (80, 320), f"{PEFT}lm_head.weight": (80, 320)}
    return tensors | state(shapes, seed=9)


def test_low_rank_updates_are_added_and_tuned_tensors_replace(tmp_path: Path) -> None:
    llama = save_llama(tmp_path / "llm")
    tensors = tuned(llama)
    source = save(tmp_path / "agent.bin", agent() | tensors)
    sources = {"llm": tmp_path / "llm", "agent": source}
    import_pack(sources, tmp_path / "pack", ImportOptions(lora_alpha=8.0))
    mllm, _ = load_mllm(load_pack(tmp_path / "pack"))
    module = f"{PEFT}model.layers.1."
    down, up = (tensors[f"{module}self_attn.q_proj.lora_{half}.default.weight"] for half in "AB")
    wanted = llama.model.layers[1].self_attn.q_proj.weight + 2.0 * up @ down
    torch.testing.assert_close(mllm.llm.model.layers[1].self_attn.q_proj.weight, wanted)
    norm = tensors[f"{module}input_layernorm.modules_to_save.default.weight"]
    assert torch.equal(mllm.llm.model.layers[1].input_layernorm.weight, norm)
    assert mllm.llm.config.vocab_size == 80 and mllm.llm.lm_head.weight.shape == (80, 320)
    rows = rows_of(tmp_path / "pack")
    assert (
        rows[f"{module}input_layernorm.original_module.weight"]["reason"] == "was replaced by the tuned one"
    )
    assert rows["lm_head.weight"]["reason"] == "the agent has its own"
    assert set(rows) >= set(agent()) | set(tensors) | set(llama.state_dict())


def test_an_update_without_its_other_half_is_refused(tmp_path: Path) -> None:
    llama = save_llama(tmp_path / "llm")
    tensors = tuned(llama)
    del tensors[f"{PEFT}model.layers.0.self_attn.q_proj.lora_B.default.weight"]
    source = save(tmp_path / "agent.bin", agent() | tensors)
    with pytest.raises(VisavisError, match=r"0\.self_attn\.q_proj\.lora_A.* updates no weight"):
        import_pack({"llm": tmp_path / "llm", "agent": source}, tmp_path / "pack", ImportOptions())


def test_a_plain_llama_gets_untrained_connectors(tmp_path: Path) -> None:
    save_llama(tmp_path / "llm")
    rows = import_pack({"llm": tmp_path / "llm"}, tmp_path / "pack", ImportOptions())
    mllm, _ = load_mllm(load_pack(tmp_path / "pack"))
    assert mllm.config.token_dim == 4096 and mllm.config.view_positions
    assert {row.reason for row in rows if not row.source} == {"not in the source: begins untrained"}


def test_a_configuration_of_another_llama_is_an_error(tmp_path: Path) -> None:
    save_llama(tmp_path / "llm")
    llama_config(intermediate_size=900).save_pretrained(tmp_path / "llm")
    with pytest.raises(VisavisError, match=r"mlp\..*\[864, 320\], wanted \[900, 320\]"):
        import_pack({"llm": tmp_path / "llm"}, tmp_path / "pack", ImportOptions())


def test_a_missing_tokenizer_is_an_error_and_may_lie_elsewhere(tmp_path: Path) -> None:
    save_llama(tmp_path / "llm")
    for file in (tmp_path / "llm").glob("*token*"):
        file.unlink()
    with pytest.raises(VisavisError, match="has neither tokenizer"):
        import_pack({"llm": tmp_path / "llm"}, tmp_path / "pack", ImportOptions())
    save_tokenizer(tmp_path / "words")
    sources = {"llm": tmp_path / "llm", "tokenizer": tmp_path / "words"}
    import_pack(sources, tmp_path / "pack", ImportOptions())
    assert len(load_mllm(load_pack(tmp_path / "pack"))[1]) == len(WORDS)
