"""Packs of other systems: the right classes, tiny, with random weights."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlamaForCausalLM,
)

from visavis.evaluation.systems.emu2 import EvaConfig, EvaEncoder
from visavis.evaluation.systems.seedx import Perceiver, PerceiverConfig
from visavis.files import read_json, write_json
from visavis.packs import Pack, load_pack
from visavis.packs.manifest import Manifest, Part, write_manifest

SEEDX_SHAPE = {"dim": 32, "depth": 2, "dim_head": 8, "heads": 4, "output1_dim": 24, "output2_dim": 40}
EVA = EvaConfig(image_size=28, patch_size=7, width=24, layers=2, head_width=8, mlp_ratio=2.0, tokens=4)
STORYBOOK = load_pack("storybook")


def unet(condition: int, pooled: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=1,
        projection_class_embeddings_input_dim=6 * 8 + pooled,
        cross_attention_dim=condition,
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        sample_size=16,
    )


def painting(folder: Path, condition: int, pooled: int) -> None:
    unet(condition, pooled).save_pretrained(folder / "unet")
    EulerDiscreteScheduler().save_pretrained(folder / "scheduler")


def sealed(root: Path, **settings: dict[str, object]) -> Pack:
    parts = {
        path.name: Part(path=path.name, licence="MIT", settings=settings.get(path.name, {}))
        for path in sorted(root.iterdir())
    }
    write_manifest(root, Manifest(name="tiny", version="1", licence="MIT", parts=parts))
    return load_pack(str(root))


def seedx(root: Path) -> Pack:
    torch.manual_seed(0)
    for part in ("image_encoder", "mllm"):
        shutil.copytree(STORYBOOK.part(part), root / part)
    channels = read_json(root / "mllm" / "config.json")["token_dim"]
    config = PerceiverConfig(**SEEDX_SHAPE, num_queries=64, embedding_dim=channels)
    folder = root / "seed_detokenizer"
    painting(folder, condition=24 + 40, pooled=40)
    save_file(Perceiver(config).state_dict(), folder / "model.safetensors")
    write_json(folder / "config.json", asdict(config))
    vae().save_pretrained(root / "vae")
    return sealed(root, seed_detokenizer={"steps": 2})


def emu2(root: Path) -> Pack:
    torch.manual_seed(0)
    folder = root / "emu2"
    painting(folder, condition=EVA.width, pooled=EVA.width)
    tokenizer = AutoTokenizer.from_pretrained(STORYBOOK.part("mllm"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["[IMG]", "[/IMG]", "<image>"]})
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    )
    llm.save_pretrained(folder / "llm")
    tokenizer.save_pretrained(folder / "llm")
    encoder = EvaEncoder(EVA)
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    state = {f"visual.{name}": weight for name, weight in encoder.state_dict().items()}
    state |= {
        "project_up.weight": torch.randn(32, EVA.width),
        "project_down.weight": torch.randn(EVA.width, 32),
    }
    save_file(state, folder / "model.safetensors")
    write_json(folder / "config.json", asdict(EVA))
    vae().save_pretrained(root / "vae")
    return sealed(root, emu2={"steps": 2})


def ip_adapter(root: Path) -> Pack:
    """SDXL with two text encoders, and an adapter with the names of those that are published."""
    torch.manual_seed(0)
    clip_tokenizer = AutoTokenizer.from_pretrained(STORYBOOK.part("clip"))
    words = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "projection_dim": 32,
        "vocab_size": len(clip_tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": clip_tokenizer.bos_token_id or 0,
        "eos_token_id": clip_tokenizer.eos_token_id or 1,
        "pad_token_id": clip_tokenizer.pad_token_id or 0,
    }
    network = unet(condition=64, pooled=32)
    clip_tokenizer.model_max_length = 77
    pipeline = StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**words)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**words)),
        tokenizer=clip_tokenizer,
        tokenizer_2=clip_tokenizer,
        unet=network,
        scheduler=EulerDiscreteScheduler(),
    )
    pipeline.save_pretrained(root / "pipeline")
    shape = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        projection_dim=16,
        image_size=28,
        patch_size=7,
    )
    CLIPVisionModelWithProjection(shape).save_pretrained(root / "ip_adapter" / "image_encoder")
    state = {"image_proj.proj.weight": torch.randn(4 * 64, 16), "image_proj.proj.bias": torch.randn(4 * 64)}
    state |= {"image_proj.norm.weight": torch.ones(64), "image_proj.norm.bias": torch.zeros(64)}
    for number, name in enumerate(network.attn_processors):
        if "attn2" in name:
            block = network.get_submodule(name.removesuffix(".processor"))
            width = block.to_k.weight.shape[0]
            for side in ("k", "v"):
                state[f"ip_adapter.{number}.to_{side}_ip.weight"] = torch.randn(width, 64)
    save_file(state, root / "ip_adapter" / "ip-adapter_sdxl.safetensors")
    return sealed(root, ip_adapter={"steps": 2, "scale": 1.0})
