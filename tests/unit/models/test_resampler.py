"""The resampler against a plain implementation in float64."""

from __future__ import annotations

import pytest
import torch

from tests.unit.models.plain_encoder import plain_positions, plain_resampler, shaken
from visavis.models.resampler import Resampler, sincos_position_2d


@pytest.mark.parametrize(
    ("grid", "dim", "input_dim", "side"), [(4, 16, 16, 4), (4, 16, 12, 8), (2, 24, 16, 3)]
)
@torch.no_grad()
def test_the_resampler_is_plain_cross_attention(grid: int, dim: int, input_dim: int, side: int) -> None:
    torch.manual_seed(0)
    resampler = shaken(Resampler(grid, dim, heads=4, input_dim=input_dim))
    x = torch.randn(2, side * side, input_dim, dtype=torch.float64)
    state = resampler.state_dict()
    assert ("kv_proj.weight" in state) == (input_dim != dim)
    # The library resizes in float32, so positions of another grid agree to that precision only.
    torch.testing.assert_close(resampler(x), plain_resampler(state, x, 4, 1e-5), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("dim", "grid"), [(8, 3), (16, 5)])
def test_positions_code_the_column_first(dim: int, grid: int) -> None:
    torch.testing.assert_close(
        sincos_position_2d(dim, grid).double(), plain_positions(dim, grid), atol=1e-6, rtol=0
    )


def test_a_sequence_that_is_no_square_is_refused() -> None:
    with pytest.raises(ValueError, match="12 tokens is not a square"):
        Resampler(2, 8, 2)(torch.zeros(1, 12, 8))
