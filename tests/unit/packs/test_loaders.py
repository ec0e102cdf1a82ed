"""The loaders: what each library saved comes back through the pack, fp16 on disk and float32 in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel
from PIL import Image
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from visavis.errors import VisavisError
from visavis.models.image_encoder import ImageEncoder, ImageEncoderConfig
from visavis.models.mllm import Mllm, MllmConfig
from visavis.packs import Manifest, Pack, Part, load_pack, write_manifest
from visavis.packs.loaders import (
    load_autoencoder,
    load_clip,
    load_image_encoder,
    load_mllm,
    load_text_to_image,
)
from visavis.packs.saving import save_half
from visavis.pretrain.autoencoder import CONFIG
from visavis.pretrain.vocabulary import build_tokenizer


def packed(root: Path, *parts: str) -> Pack:
    """Declares the folders below `root` and opens the pack."""
    declared = {part: Part(path=part, licence="MIT") for part in parts}
    write_manifest(root, Manifest(name="tiny", version="1", licence="MIT", parts=declared))
    return load_pack(root)


def save_vae(folder: Path) -> AutoencoderDC:
    torch.manual_seed(0)
    model = AutoencoderDC(**CONFIG)
    save_half(model, folder)
    return model


def test_half_on_disk_and_single_in_memory(tmp_path: Path) -> None:
    model = save_vae(tmp_path / "vae")
    stored = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}

    loaded = load_autoencoder(packed(tmp_path, "vae"))
    assert isinstance(loaded, AutoencoderDC) and not loaded.training
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    picture = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(picture).sample, model(picture).sample, atol=0.02, rtol=0.02)


def test_what_is_no_autoencoder_is_named(tmp_path: Path) -> None:
    save_vae(tmp_path / "vae")
    config = tmp_path / "vae" / "config.json"
    config.write_text(config.read_text().replace("AutoencoderDC", "PixArtTransformer2DModel"))
    with pytest.raises(VisavisError, match=r"vae: _class_name is 'PixArtTransformer2DModel'"):
        load_autoencoder(packed(tmp_path, "vae"))


def test_text_to_image_comes_with_its_scheduler(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1}
    shape |= {"in_channels": 32, "out_channels": 32, "sample_size": 8, "patch_size": 1}
    shape |= {"cross_attention_dim": 16, "caption_channels": 8, "use_additional_conditions": False}
    save_half(PixArtTransformer2DModel(**shape), tmp_path / "text_to_image" / "denoiser")
    FlowMatchEulerDiscreteScheduler(shift=2.0).save_pretrained(tmp_path / "text_to_image" / "scheduler")
    denoiser, scheduler = load_text_to_image(packed(tmp_path, "text_to_image"))
    assert denoiser.dtype == torch.float32 and not denoiser.training
    assert scheduler.config.shift == 2.0


def test_image_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"image_size": 16, "patch_size": 4, "width": 16, "layers": 1, "heads": 2, "mlp_width": 16}
    pooled = {"position_grid": 4, "pool_grid": 2, "output_dim": 16, "pool_heads": 2}
    ImageEncoder(ImageEncoderConfig(**shape, **pooled)).save_pretrained(
        tmp_path / "image_encoder", torch.float16
    )
    encoder = load_image_encoder(packed(tmp_path, "image_encoder"))
    assert encoder(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 16)
    assert next(encoder.parameters()).dtype == torch.float32


def test_a_tokenizer_of_more_words_than_the_llm_has_rows_is_refused(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(["Olivia on the left"], 4)
    shape = MllmConfig(token_dim=8, image_tokens=4, connector_heads=2)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    Mllm(LlamaForCausalLM(config), shape).save_pretrained(tmp_path / "mllm", torch.float16)
    tokenizer.save_pretrained(tmp_path / "mllm")
    model, again = load_mllm(packed(tmp_path, "mllm"))
    assert len(again) == model.llm.config.vocab_size
    build_tokenizer(["Olivia and Julian on the left"], 4).save_pretrained(tmp_path / "mllm")
    with pytest.raises(
        VisavisError, match=rf"has {len(tokenizer) + 2} words, but the LLM rows for {len(tokenizer)}"
    ):
        load_mllm(packed(tmp_path, "mllm"))


def test_an_altered_part_is_not_loaded(tmp_path: Path) -> None:
    save_vae(tmp_path / "vae")
    pack = packed(tmp_path, "vae")
    (tmp_path / "vae" / "config.json").write_text("{}")
    with pytest.raises(VisavisError, match="has sha256"):
        load_autoencoder(pack)


def test_bundled_clip_reads_pictures_and_words() -> None:
    pack = load_pack("storybook")
    model, processor = load_clip(pack)
    picture = Image.new("RGB", (96, 96), (128, 128, 128))
    inputs = processor(
        text=["a person with a bald head"], images=[picture], return_tensors="pt", padding=True
    )
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert float(inputs["pixel_values"].abs().max()) < 0.02
    assert model(**inputs).logits_per_image.shape == (1, 1)
