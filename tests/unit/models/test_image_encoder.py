"""The image encoder against a plain implementation: in float64, and at its published size."""

from __future__ import annotations

import pytest
import torch

from tests.unit.models.plain_encoder import plain_encoder, shaken
from visavis.models.image_encoder import ImageEncoder, ImageEncoderConfig, pool_tokens
from visavis.models.resampler import Resampler

TINY = ImageEncoderConfig(
    image_size=448, width=24, layers=2, heads=2, mlp_width=40, output_dim=32, pool_heads=4
)
"""The published grids (32 x 32 patches over a table of 16 x 16, 256 queries) at a small width."""
SMALL = ImageEncoderConfig(
    image_size=32,
    patch_size=8,
    width=16,
    layers=3,
    heads=4,
    mlp_width=24,
    position_grid=4,
    pool_grid=2,
    output_dim=16,
    pool_heads=2,
)


@pytest.mark.parametrize("config", [SMALL, TINY], ids=["same grid", "published grids"])
@torch.no_grad()
def test_the_encoder_is_the_plain_one(config: ImageEncoderConfig) -> None:
    torch.manual_seed(0)
    encoder = shaken(ImageEncoder(config))
    pictures = torch.rand(2, 3, config.image_size, config.image_size, dtype=torch.float64) * 2 - 1
    expected = plain_encoder(encoder.state_dict(), config, pictures)
    assert expected.shape == (2, config.pool_grid**2, config.output_dim)
    # Positions are resized in float32.
    torch.testing.assert_close(encoder(pictures), expected, atol=1e-5, rtol=1e-5)


def test_published_sizes() -> None:
    with torch.device("meta"):
        encoder = ImageEncoder(ImageEncoderConfig())
        reader, writer = Resampler(8, 5120, 32, 4096), Resampler(8, 4096, 32, 5120)
    sizes = [sum(p.numel() for p in module.parameters()) for module in (encoder, reader, writer)]
    w, f, layers, d = 1664, 8192, 48, 4096
    block = 3 * w * w + 3 * w + w * w + w + 2 * w * f + w + f + 4 * w
    attention = 4 * d * d + 4 * d
    pool = 256 * d * 2 + w * d + attention + 4 * d
    trunk = 3 * 14 * 14 * w + 256 * w + 2 * w + layers * block
    assert sizes[0] == trunk + pool + 2 * d + d * d
    assert sizes[0] == pytest.approx(1.93e9, rel=0.01)
    assert sizes[1:] == pytest.approx([126e6, 88e6], rel=0.01)


def test_pooling_averages_runs_of_four_along_the_order_of_queries() -> None:
    tokens = torch.arange(16.0).view(1, 16, 1)
    assert pool_tokens(tokens).flatten().tolist() == [1.5, 5.5, 9.5, 13.5]
