"""The text-to-image transformer: which pictures are drawn, and going on from an earlier result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PixArtTransformer2DModel

from visavis.errors import VisavisError
from visavis.files import write_atomic
from visavis.models.detokenizer import DENOISER_FOLDER
from visavis.packs.loaders import load_autoencoder, load_clip
from visavis.packs.manifest import Pack, load_pack
from visavis.pretrain.pictures import PictureSet
from visavis.pretrain.start import begin
from visavis.pretrain.text_to_image import draw_rows, train_text_to_image, whole_pairs
from visavis.training.config import OptimConfig
from visavis.training.engine.loop import CHECKPOINTS


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    """A small set."""
    return PictureSet.build(tmp_path_factory.mktemp("pictures") / "small", count=20, seed=500)


def test_a_share_of_the_draws_shows_two_people(pictures: PictureSet) -> None:
    rng, total, pairs = np.random.default_rng(0), len(pictures.rows), whole_pairs(pictures)
    assert {pictures.rows[i]["kind"] for i in pairs} == {"scene", "moved"}
    assert {len(pictures.rows[i]["people"]) for i in pairs} == {2}
    only = draw_rows(total, pairs, 1.0, 64, rng)
    assert np.isin(only, pairs).all() and (np.diff(only) >= 0).all()
    share = np.isin(draw_rows(total, pairs, 0.0, 2000, rng), pairs).mean()
    more = np.isin(draw_rows(total, pairs, 0.5, 2000, rng), pairs).mean()
    assert share == pytest.approx(len(pairs) / total, abs=0.05)
    assert more == pytest.approx(0.5 + 0.5 * share, abs=0.05)


def test_training_goes_on_from_an_earlier_result(pictures: PictureSet, tmp_path: Path) -> None:
    pack: Pack = load_pack("storybook")
    clip, processor = load_clip(pack, dtype=torch.float32)
    config = OptimConfig(steps=1, batch_size=2, lr=1e-12, warmup=0, log_every=1)
    start = pack.part("text_to_image")
    figures = train_text_to_image(
        tmp_path / "work",
        tmp_path / "out",
        clip,
        processor.tokenizer,
        load_autoencoder(pack, dtype=torch.float32),
        pictures.root,
        pictures.root,
        config,
        start,
        pairs=0.5,
    )
    assert 0 < figures["clean_latent_mse"] < 1 and 0 < figures["clean_latent_mse_pairs"] < 1
    before, after = (
        PixArtTransformer2DModel.from_pretrained(folder / DENOISER_FOLDER).state_dict()
        for folder in (start, tmp_path / "out")
    )
    assert all(torch.equal(before[name].half(), after[name].half()) for name in before)


def test_checkpoints_of_another_beginning_are_refused(tmp_path: Path) -> None:
    first, second, work = tmp_path / "first", tmp_path / "second", tmp_path / "work"
    for number, folder in enumerate((first, second)):
        write_atomic(folder / "denoiser" / "model.safetensors", f"weights {number}")
    with pytest.raises(VisavisError, match=r"holds no \*\.safetensors"):
        begin(work, tmp_path / "nowhere")
    begin(work, second)
    begin(work, first)
    (work / CHECKPOINTS).mkdir()
    begin(work, first)
    for other in (second, None):
        with pytest.raises(VisavisError, match="began from other weights"):
            begin(work, other)
