"""Saving at rest: half the bytes, and the model itself stays as it was."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderDC
from safetensors.torch import load_file

from visavis.packs.saving import save_half
from visavis.pretrain.autoencoder import CONFIG


def test_the_file_is_fp16_and_the_model_is_not(tmp_path: Path) -> None:
    model = AutoencoderDC(**CONFIG)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_half(model, tmp_path / "part")
    kept = load_file(tmp_path / "part" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.float16}
    after = model.state_dict()
    assert all(
        after[name].dtype == torch.float32 and torch.equal(after[name], before[name]) for name in before
    )
    assert (tmp_path / "part" / "config.json").is_file()
