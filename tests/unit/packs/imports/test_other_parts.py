"""Diffusers' folders, SAM, CLIP and insightface become parts that the loaders open."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from published import save
from transformers import CLIPConfig, CLIPModel, CLIPProcessor

from visavis import packs
from visavis.errors import VisavisError
from visavis.files import read_json, write_json
from visavis.packs import load_pack
from visavis.packs.face_parts import build_sam
from visavis.packs.imports import ImportOptions, import_pack
from visavis.packs.imports.checkpoint import Checkpoint
from visavis.packs.imports.people import sam_config
from visavis.packs.loaders import (
    load_autoencoder,
    load_clip,
    load_segmenter,
    load_text_to_image,
)

BUNDLED = Path(packs.__file__).parent / "storybook"
PIXART: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "in_channels": 4, "out_channels": 8,
    "sample_size": 8, "patch_size": 2, "cross_attention_dim": 16, "caption_channels": 24,
}  # fmt: skip
SANA: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "in_channels": 4, "out_channels": 4,
    "sample_size": 8, "patch_size": 1, "cross_attention_dim": 16, "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8, "caption_channels": 24,
}  # fmt: skip
UNET: dict[str, Any] = {
    "block_out_channels": (8, 16), "layers_per_block": 1, "sample_size": 8, "cross_attention_dim": 16,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "norm_num_groups": 4, "attention_head_dim": 4,
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 24 + 20,
}  # fmt: skip
KL: dict[str, Any] = {"block_out_channels": (8,), "norm_num_groups": 4, "latent_channels": 4}


def pipeline(folder: Path, kind: type[Any], shape: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    model = kind(**shape)
    where = "unet" if kind is diffusers.UNet2DConditionModel else "transformer"
    model.save_pretrained(folder / where)
    diffusers.DPMSolverMultistepScheduler().save_pretrained(folder / "scheduler")
    diffusers.AutoencoderKL(**KL).save_pretrained(folder / "vae")
    (folder / "text_encoder").mkdir()
    return model


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (diffusers.PixArtTransformer2DModel, PIXART),
        (diffusers.SanaTransformer2DModel, SANA),
        (diffusers.UNet2DConditionModel, UNET),
    ],
)
def test_a_diffusers_pipeline(tmp_path: Path, kind: type[Any], shape: dict[str, Any]) -> None:
    model = pipeline(tmp_path / "in", kind, shape)
    rows = import_pack({"text_to_image": tmp_path / "in"}, tmp_path / "pack", ImportOptions(dtype="float16"))
    pack = load_pack(tmp_path / "pack")
    again = diffusers.AutoModel.from_pretrained(
        str(pack.part("text_to_image") / "denoiser"), torch_dtype=torch.float32
    )
    assert type(again) is kind
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    assert type(load_autoencoder(pack)) is diffusers.AutoencoderKL
    assert [row.source for row in rows if not row.target] == ["text_encoder/"]


def test_pixart_alpha_is_told_its_class_of_today(tmp_path: Path) -> None:
    pipeline(tmp_path / "in", diffusers.PixArtTransformer2DModel, PIXART)
    file = tmp_path / "in" / "transformer" / "config.json"
    write_json(file, read_json(file) | {"_class_name": "Transformer2DModel"})
    import_pack({"text_to_image": tmp_path / "in"}, tmp_path / "pack", ImportOptions())
    assert isinstance(load_text_to_image(load_pack(tmp_path / "pack"))[0], diffusers.PixArtTransformer2DModel)


def test_old_names_of_an_autoencoders_attention(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(**KL)
    model.save_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in model.state_dict().items():
        for new, former in old.items():
            name = name.replace(f".{new}.", f".{former}.")
        tensors[name] = tensor
    assert any(".proj_attn." in name for name in tensors)
    save(tmp_path / "vae" / "diffusion_pytorch_model.bin", tensors)
    import_pack({"vae": tmp_path / "vae"}, tmp_path / "pack", ImportOptions())
    again = load_autoencoder(load_pack(tmp_path / "pack"))
    latent = torch.ones(1, 4, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(again.decode(latent).sample, model.eval().decode(latent).sample)


def test_another_class_is_refused(tmp_path: Path) -> None:
    pipeline(tmp_path / "in", diffusers.PixArtTransformer2DModel, PIXART)
    file = tmp_path / "in" / "transformer" / "config.json"
    write_json(file, read_json(file) | {"_class_name": "FluxTransformer2DModel"})
    with pytest.raises(VisavisError, match="FluxTransformer2DModel"):
        import_pack({"text_to_image": tmp_path / "in"}, tmp_path / "pack", ImportOptions())


def test_a_sam_in_the_proportions_of_vit_h(tmp_path: Path) -> None:
    """Heads of 80 channels, windows of 14, global attention in one block, 256 px instead of 1024."""
    config = {
        "image_size": 256, "patch_size": 16, "embed_dim": 160, "depth": 2, "num_heads": 2, "mlp_ratio": 4.0,
        "window_size": 14, "global_attn_indexes": [1], "use_rel_pos": True, "prompt_dim": 32, "mask_in_chans": 16,
        "num_multimask_outputs": 3, "decoder_depth": 2, "decoder_heads": 8, "decoder_mlp_dim": 64,
        "iou_head_depth": 3, "iou_head_hidden_dim": 32,
    }  # fmt: skip
    torch.manual_seed(0)
    model = build_sam(config)
    source = save(tmp_path / "sam_vit_h_4b8939.pth", dict(model.state_dict()))
    assert sam_config(Checkpoint("segmenter", source)) == config
    import_pack({"segmenter": source}, tmp_path / "pack", ImportOptions())
    predictor = load_segmenter(load_pack(tmp_path / "pack"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(predictor.model.state_dict()[name], tensor)


def test_a_clip_with_its_processor(tmp_path: Path) -> None:
    model = CLIPModel(CLIPConfig.from_pretrained(BUNDLED / "clip"))
    model.save_pretrained(tmp_path / "in")
    CLIPProcessor.from_pretrained(BUNDLED / "clip").save_pretrained(tmp_path / "in")
    import_pack({"clip": tmp_path / "in"}, tmp_path / "pack", ImportOptions())
    again, processor = load_clip(load_pack(tmp_path / "pack"))
    assert torch.equal(again.visual_projection.weight, model.visual_projection.weight)
    assert processor(text=["two people"])["input_ids"]


def test_an_insightface_pack_and_its_licence(tmp_path: Path) -> None:
    folder = tmp_path / "buffalo_l"
    shutil.copytree(BUNDLED / "faces" / "models" / "storybook", folder)
    rows = import_pack({"faces": folder}, tmp_path / "pack", ImportOptions())
    pack = load_pack(tmp_path / "pack")
    assert "NON-COMMERCIAL" in pack.manifest.parts["faces"].licence
    assert "NON-COMMERCIAL" in pack.manifest.licence
    assert {row.reason for row in rows} == {"detection", "recognition"}
    assert pack.settings("faces")["det_size"] == [640, 640] and pack.settings("faces")["name"] == "buffalo_l"
    (folder / "rec.onnx").unlink()
    with pytest.raises(VisavisError, match="no ONNX file for recognition"):
        import_pack({"faces": folder}, tmp_path / "again", ImportOptions())
