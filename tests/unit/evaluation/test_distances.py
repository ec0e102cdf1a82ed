from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.image.kid import KernelInceptionDistance

from visavis.errors import VisavisError
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.distances import clip_distances
from visavis.evaluation.intervals import Figure

CONFIG = EvaluateConfig(bootstrap_samples=300)


def features(seed: int, shift: float = 0.0, count: int = 120) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 6)) + shift).astype(np.float32)


def distances(true: np.ndarray, made: np.ndarray) -> dict[str, Figure]:
    return clip_distances(true, made, range(len(true)), CONFIG)


def test_the_frechet_distance_is_its_definition() -> None:
    true, made = features(0), features(1, 0.5)
    mean = np.sum((true.mean(0) - made.mean(0)) ** 2)
    first, second = np.cov(true, rowvar=False), np.cov(made, rowvar=False)
    expected = mean + np.trace(first + second - 2 * sqrtm(first @ second).real)
    figure = distances(true, made)["fid_clip"]
    assert figure.value == pytest.approx(expected, rel=1e-4)
    assert figure.to_dict() == {"value": figure.value, "ci95": None, "n": 120}


def test_the_kernel_distance_of_independent_sets_is_that_of_torchmetrics_but_for_the_pairs_left_out() -> None:
    true, made = features(0), features(1, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=1, subset_size=120)
    metric.update(torch.from_numpy(true), real=True)
    metric.update(torch.from_numpy(made), real=False)
    cross = (true.astype(float) @ made.T / 6 + 1) ** 3
    same = np.trace(cross) / 120
    expected = float(metric.compute()[0]) + 2 * (same - cross.mean()) / 119
    figure = distances(true, made)["kid_clip"]
    assert figure.value == pytest.approx(expected, rel=1e-4)
    assert figure.ci95[0] < figure.value < figure.ci95[1]
    assert (figure.n, figure.clusters) == (120, 120)


def test_sets_of_equal_look_lie_near_zero_and_others_do_not() -> None:
    near, far = (distances(features(0), features(1, shift)) for shift in (0.0, 1.0))
    for name in ("fid_clip", "kid_clip"):
        assert far[name].value > near[name].value + 1
    low, high = near["kid_clip"].ci95
    assert low < 0 < high
    assert far["kid_clip"].ci95[0] > 0


def test_copies_of_the_true_pictures_are_at_distance_zero_and_not_below() -> None:
    same = distances(features(0), features(0))
    assert same["fid_clip"].value == pytest.approx(0, abs=1e-6)
    assert same["kid_clip"].value == pytest.approx(0, abs=1e-9)
    worse = [distances(features(0), features(0) * scale)["kid_clip"].value for scale in (1.1, 1.3, 1.6)]
    assert worse == sorted(worse)


def test_pictures_of_one_cluster_are_not_compared_and_are_resampled_together() -> None:
    true, made = np.repeat(features(0, count=30), 4, axis=0), np.repeat(features(1, 0.5, 30), 4, axis=0)
    clusters = np.repeat(np.arange(30), 4)
    figure = clip_distances(true, made, clusters, CONFIG)["kid_clip"]
    wide = distances(true, made)["kid_clip"]
    assert figure.clusters == 30
    assert figure.ci95[1] - figure.ci95[0] > 1.5 * (wide.ci95[1] - wide.ci95[0])
    alone = clip_distances(true, made, ["all"] * 120, CONFIG)["kid_clip"]
    assert alone.to_dict() == {"value": None, "ci95": None, "n": 0}


def test_too_few_pictures_have_no_distance() -> None:
    few = distances(features(0, count=6), features(1, count=6))
    assert [figure.to_dict() for figure in few.values()] == [{"value": None, "ci95": None, "n": 0}] * 2
    some = distances(features(0, count=49), features(1, count=49))
    assert (some["fid_clip"].n, some["kid_clip"].n) == (49, 0)


def test_the_sets_must_be_of_one_size() -> None:
    with pytest.raises(VisavisError, match="as sets"):
        distances(features(0), features(1, count=100))
