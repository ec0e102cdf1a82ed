"""Lends the tests of this folder a model folder and processes that serve."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model version of the embedded pack's parts: it answers, and paints with a detokenizer that was not tuned."""
    import torch

    from visavis.chat.model import write_model
    from visavis.models.detokenizer import Detokenizer
    from visavis.packs import load_pack
    from visavis.packs.loaders import load_image_encoder, load_text_to_image

    pack, folder = load_pack("storybook"), tmp_path_factory.mktemp("model")
    denoiser, scheduler = load_text_to_image(pack)
    torch.manual_seed(0)
    token_dim = load_image_encoder(pack).config.output_dim
    Detokenizer.from_text_to_image(denoiser, scheduler, token_dim).save_pretrained(folder / "detokenizer")
    write_model(folder / "version", pack.part("mllm"), folder / "detokenizer", "storybook", sample_steps=4)
    return folder / "version"
