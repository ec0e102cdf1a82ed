"""Random weights under the published names, in the published proportions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<s>", "</s>", "<unk>", "hello", "<img>", "</img>", *(f"<img_{index:05d}>" for index in range(64))]


def state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def qwen_vit(width: int = 208, layers: int = 2, dim: int = 256, prefix: str = "") -> dict[str, Tensor]:
    """Qwen-VL's ViT: heads of 104 and 128 channels, MLP 4.9231 times as wide, 16 x 16 positions, patches of 14 px."""
    hidden = int(width * 4.9231)
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (width, 3, 14, 14),
        "positional_embedding": (256, width),
        "ln_pre.weight": (width,),
        "ln_pre.bias": (width,),
        "attn_pool.query": (256, dim),
        "attn_pool.pos_embed": (256, dim),
        "attn_pool.kv_proj.weight": (dim, width),
        "attn_pool.attn.in_proj_weight": (3 * dim, dim),
        "attn_pool.attn.in_proj_bias": (3 * dim,),
        "attn_pool.attn.out_proj.weight": (dim, dim),
        "attn_pool.attn.out_proj.bias": (dim,),
        "attn_pool.ln_q.weight": (dim,),
        "attn_pool.ln_q.bias": (dim,),
        "attn_pool.ln_kv.weight": (dim,),
        "attn_pool.ln_kv.bias": (dim,),
        "ln_post.weight": (dim,),
        "ln_post.bias": (dim,),
        "proj": (dim, dim),
    }
    linears = {
        "attn.in_proj": (3 * width, width),
        "attn.out_proj": (width, width),
        "mlp.c_fc": (hidden, width),
        "mlp.c_proj": (width, hidden),
    }
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}."
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}{norm}.weight": (width,), f"{block}{norm}.bias": (width,)}
        for name, shape in linears.items():
            shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": (shape[0],)}
    return {f"{prefix}{name}": tensor for name, tensor in state(shapes).items()}


def resampler(prefix: str, queries: int, dim: int, input_dim: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "query": (queries, dim),
        "pos_embed": (queries, dim),
        "kv_proj.weight": (dim, input_dim),
        "attn.in_proj_weight": (3 * dim, dim),
        "attn.in_proj_bias": (3 * dim,),
        "attn.out_proj.weight": (dim, dim),
        "attn.out_proj.bias": (dim,),
    }
    shapes |= {f"{norm}.{kind}": (dim,) for norm in ("ln_q", "ln_kv") for kind in ("weight", "bias")}
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def agent(dim: int = 320, token_dim: int = 256) -> dict[str, Tensor]:
    """SEED-X's agent without its LLaMA: 5120 to 4096 channels are 320 to 256."""
    shapes = resampler("input_resampler", 64, dim, token_dim) | resampler(
        "output_resampler", 64, token_dim, dim
    )
    return state(shapes | {"patch_pos_embed": (4, dim)}, seed=1)


def llama_config(**changes: Any) -> LlamaConfig:
    shape = {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaConfig(vocab_size=len(WORDS), **(shape | changes))


def save_llama(folder: Path, sharded: bool = False, torch_files: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(2)
    model = LlamaForCausalLM(llama_config())
    model.save_pretrained(folder, max_shard_size="1MB" if sharded else "5GB")
    if torch_files:
        for file in folder.glob("*.safetensors"):
            file.unlink()
        names = list(model.state_dict())
        halves = {
            "pytorch_model-00001-of-00002.bin": names[::2],
            "pytorch_model-00002-of-00002.bin": names[1::2],
        }
        for file_name, part in halves.items():
            torch.save({name: model.state_dict()[name] for name in part}, folder / file_name)
        index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    save_tokenizer(folder)
    return model


def save_tokenizer(folder: Path) -> None:
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def save(path: Path, tensors: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path
