"""Pictures at rest (uint8, height × width × 3) and in models (float, 3 × height × width, in [-1, 1])."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Turns uint8 `[B, H, W, 3]` into float32 `[B, 3, H, W]` in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(tensor: Tensor) -> NDArray[np.uint8]:
    """Turns float `[B, 3, H, W]` in [-1, 1] into uint8 `[B, H, W, 3]`; values outside are clipped."""
    scaled = (tensor.clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
