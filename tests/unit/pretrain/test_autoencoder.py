"""The autoencoder's training: shapes, the loss, and what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC

from visavis.files import read_json
from visavis.models.pixels import to_tensor
from visavis.pretrain.autoencoder import CONFIG, autoencoder_loss, encode, psnr, train_autoencoder
from visavis.pretrain.pictures import PictureSet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small sets, of different people."""
    root = tmp_path_factory.mktemp("pictures")
    PictureSet.build(root / "train", count=20, seed=500)
    PictureSet.build(root / "eval", count=20, seed=1_000_500)
    return root


@pytest.fixture
def model() -> AutoencoderDC:
    torch.manual_seed(0)
    return AutoencoderDC(**CONFIG).eval()


def test_shapes(model: AutoencoderDC, folder: Path) -> None:
    images = PictureSet.open(folder / "train").images[:5]
    assert encode(model, images, batch=2).shape == (5, 32, 8, 8)
    values = psnr(model, images, batch=2)
    assert values.shape == (5,) and bool((values > 0).all())


def test_the_loss_reaches_every_weight_and_falls(model: AutoencoderDC, folder: Path) -> None:
    batch = to_tensor(PictureSet.open(folder / "train").images[:4])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(4):
        loss = autoencoder_loss(model, batch, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_training_writes_a_part_that_opens(folder: Path, tmp_path: Path) -> None:
    figures = train_autoencoder(tmp_path / "work", tmp_path / "out", 1.0, pictures=folder)
    assert read_json(tmp_path / "out" / "figures.json") == figures
    assert {"psnr_db_pair", "psnr_db_closeup", "latent_std"} <= set(figures)
    opened = AutoencoderDC.from_pretrained(tmp_path / "out", torch_dtype=torch.float32)
    images = PictureSet.open(folder / "eval").images[:4]
    scaled = encode(opened.eval(), images) * opened.config.scaling_factor
    assert 0.5 < float(scaled.std()) < 2
    weights = tmp_path / "out" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < 3 * 10**6
