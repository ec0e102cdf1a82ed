"""How far a set of made pictures lies from the set of true ones, in the image features of the pack's CLIP.

These are the Frechet and the kernel distance with CLIP in place of Inception, as clean-fid's `clip_vit_b_32` has it:
they do not compare with FID and KID of the literature, only with figures of the same CLIP model on as many pictures.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from visavis.errors import VisavisError
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.intervals import Figure, percentiles

_LEAST = 50  # pictures behind a kernel distance


def clip_distances(
    true: NDArray[np.floating],
    made: NDArray[np.floating],
    clusters: Sequence[Hashable],
    config: EvaluateConfig,
) -> dict[str, Figure]:
    """Returns `fid_clip`, at least 0, and `kid_clip`, which is 0 on average for sets of equal look.

    The Frechet distance needs more pictures than features, else its covariances have no full rank, and has no interval;
    the kernel distance needs 50 pictures. With fewer the figure is missing.

    Args:
        true: Features [n, d] of the true pictures, not brought to unit length.
        made: Features [n, d] of what was made of each of them.
        clusters: A label for each of the n; pictures with equal labels may depend on each other.
        config: Bootstrap settings.

    Raises:
        VisavisError: If the two sets are of different sizes.
    """
    if true.shape != made.shape:
        raise VisavisError(
            f"features of {list(true.shape)} and {list(made.shape)} cannot be compared as sets",
            fix="give one made picture for each true one, through the same CLIP model",
        )
    count, width = true.shape
    return {
        "fid_clip": Figure(_frechet(true, made), None, count) if count > width else Figure.missing(),
        "kid_clip": _kernel(true, made, clusters, config) if count >= _LEAST else Figure.missing(),
    }


def _frechet(true: NDArray[np.floating], made: NDArray[np.floating]) -> float:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    features = torch.nn.Identity()
    features.num_features = true.shape[1]
    metric = FrechetInceptionDistance(feature=features)
    for real, rows in ((True, true), (False, made)):
        metric.update(torch.from_numpy(rows.astype(np.float64)), real=real)
    return max(float(metric.compute()), 0.0)  # rounding takes equal sets below 0


def _kernel(
    true: NDArray[np.floating],
    made: NDArray[np.floating],
    clusters: Sequence[Hashable],
    config: EvaluateConfig,
) -> Figure:
    """Returns the squared discrepancy under KID's cubic kernel, over all pairs of pictures of different clusters.

    A made picture is much like its true one, so the usual estimate, which compares it with that one too, falls far
    below 0. The one over pairs (Gretton et al. 2012, "A Kernel Two-Sample Test", equation 4) has no such bias.
    """
    import torch
    from torchmetrics.image.kid import poly_kernel

    first, second = (torch.from_numpy(rows.astype(np.float64)) for rows in (true, made))
    across = poly_kernel(first, second)
    pairs = (poly_kernel(first, first) + poly_kernel(second, second) - across - across.T).numpy()
    _, cluster = np.unique([str(label) for label in clusters], return_inverse=True)
    apart = (cluster[:, None] != cluster[None]).astype(np.float64)
    groups = int(cluster.max()) + 1
    if groups < 2:
        return Figure.missing()
    value = float((pairs * apart).sum() / apart.sum())
    drawn = np.random.default_rng(config.seed).multinomial(
        groups, np.full(groups, 1 / groups), size=config.bootstrap_samples
    )
    weights = drawn[:, cluster].astype(np.float64)
    sums, counts = ((weights @ (part * apart) * weights).sum(1) for part in (pairs, np.ones_like(pairs)))
    means = sums[counts > 0] / counts[counts > 0]
    low, high = np.quantile(means, percentiles(groups))
    return Figure(value, (float(low), float(high)), len(true), clusters=groups)
