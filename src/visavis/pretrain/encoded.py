"""What a frozen part makes of a picture set, computed once and kept beside it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from visavis.files import atomic_file
from visavis.models.pixels import to_tensor
from visavis.pretrain.pictures import PictureSet

_BATCH = 128


def encoded(pictures: PictureSet, name: str, encode: Callable[[Tensor], Tensor]) -> NDArray[np.float16]:
    """Returns what a part makes of every picture, as a read-only memory map `[N, ...]`.

    Args:
        pictures: The set.
        name: Name of the file in its folder, without its ending; one that is there is taken as it is.
        encode: Maps pixels `[B, 3, S, S]` to values `[B, ...]`.
    """
    cache = pictures.root / f"{name}.npy"
    if not cache.is_file():
        parts = []
        with torch.no_grad():
            starts = range(0, len(pictures.images), _BATCH)
            for start in tqdm(starts, desc=f"{name} of {pictures.root.name}", unit="batch", mininterval=2.0):
                parts.append(encode(to_tensor(pictures.images[start : start + _BATCH])).half().numpy())
        with atomic_file(cache) as stream:
            np.save(stream, np.concatenate(parts))
    kept: NDArray[np.float16] = np.load(cache, mmap_mode="r")
    return kept
