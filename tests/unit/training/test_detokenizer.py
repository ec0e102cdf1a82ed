"""Tuning of the detokenizer: what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from visavis.errors import VisavisError
from visavis.training.config import OptimConfig
from visavis.training.detokenizer import reconstruct


def test_without_pictures_it_says_where_to_put_some(tmp_path: Path) -> None:
    nothing = np.zeros((0, 64, 4), np.float16), np.zeros((0, 4, 8, 8), np.float16)
    with pytest.raises(VisavisError, match="no picture to tune") as caught:
        reconstruct(torch.nn.Linear(2, 2), *nothing, OptimConfig(steps=2), tmp_path)
    assert "pictures/" in caught.value.fix
    assert reconstruct(torch.nn.Linear(2, 2), *nothing, OptimConfig(steps=0), tmp_path) == {}
