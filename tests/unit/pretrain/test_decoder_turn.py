"""The second part of the autoencoder's training: the decoder learns alone, the latents stay, a finished run rests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from visavis.pretrain import autoencoder
from visavis.pretrain.autoencoder import train_autoencoder
from visavis.pretrain.pictures import PictureSet


def test_decoder_turn_leaves_the_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "_EVALUATED", 4)
    monkeypatch.setattr(autoencoder, "_STATISTICS", 16)
    PictureSet.build(tmp_path / "pictures" / "train", count=12, seed=0)
    PictureSet.build(tmp_path / "pictures" / "eval", count=12, seed=1_000_000)
    work = tmp_path / "work"
    figures = train_autoencoder(work, tmp_path / "out", 1.0)
    joint = torch.load(work / "checkpoint.pt", weights_only=True)["state"]["model"]
    after = torch.load(work / "decoder.pt", weights_only=True)["state"]["model"]
    changed = {name for name in joint if not torch.equal(joint[name], after[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)

    assert train_autoencoder(work, tmp_path / "again", 1.0) == figures
