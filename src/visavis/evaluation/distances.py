"""How far a set of made pictures lies from a set of true ones, in the image features of the pack's CLIP.

These are the Frechet and the kernel distance of torchmetrics with CLIP in place of Inception, as clean-fid's
`clip_vit_b_32` does it: they do not compare with FID and KID of the literature, only with figures of the same CLIP
model on the same number of pictures. Both are figures of a whole set and have no interval.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from visavis.errors import VisavisError
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.intervals import Figure

_SUBSETS = 100  # as in Binkowski et al. 2018, "Demystifying MMD GANs"


def clip_distances(
    true: NDArray[np.floating], made: NDArray[np.floating], config: EvaluateConfig
) -> dict[str, Figure]:
    """Returns `fid_clip` and `kid_clip`, both 0 or more for sets of equal look (the second may fall just below 0).

    The Frechet distance needs more pictures than features, else its covariances have no full rank; the kernel
    distance needs `kid_subset` pictures. With fewer the figure is missing.

    Args:
        true: Features [n, d] of the true pictures, not brought to unit length.
        made: Features [n, d] of the made ones.
        config: Size of the subsets of the kernel distance, and the seed that they are drawn by.

    Raises:
        VisavisError: If the two sets are of different sizes.
    """
    if true.shape != made.shape:
        raise VisavisError(
            f"features of {list(true.shape)} and {list(made.shape)} cannot be compared as sets",
            fix="give as many true as made pictures, through the same CLIP model",
        )
    count, width = true.shape
    return {
        "fid_clip": _one(_frechet(true, made), count) if count > width else Figure.missing(),
        "kid_clip": _one(_kernel(true, made, config), count)
        if count >= config.kid_subset
        else Figure.missing(),
    }


def _one(value: float, count: int) -> Figure:
    return Figure(value, None, count)


def _frechet(true: NDArray[np.floating], made: NDArray[np.floating]) -> float:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    features = torch.nn.Identity()
    features.num_features = true.shape[1]
    metric = FrechetInceptionDistance(feature=features)
    for real, rows in ((True, true), (False, made)):
        metric.update(torch.from_numpy(rows.astype(np.float64)), real=real)
    return max(float(metric.compute()), 0.0)  # rounding takes equal sets below 0


def _kernel(true: NDArray[np.floating], made: NDArray[np.floating], config: EvaluateConfig) -> float:
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # that it keeps all features in memory
        torch.manual_seed(config.seed)
        metric = KernelInceptionDistance(
            feature=torch.nn.Identity(), subsets=_SUBSETS, subset_size=config.kid_subset
        )
        for real, rows in ((True, true), (False, made)):
            metric.update(torch.from_numpy(rows.astype(np.float64)), real=real)
        return float(metric.compute()[0])
