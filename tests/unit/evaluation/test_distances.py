from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from visavis.errors import VisavisError
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.distances import clip_distances

CONFIG = EvaluateConfig(kid_subset=60)


def features(seed: int, shift: float = 0.0, count: int = 120) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 6)) + shift).astype(np.float32)


def test_the_frechet_distance_is_its_definition() -> None:
    true, made = features(0), features(1, 0.5)
    mean = np.sum((true.mean(0) - made.mean(0)) ** 2)
    first, second = np.cov(true, rowvar=False), np.cov(made, rowvar=False)
    expected = mean + np.trace(first + second - 2 * sqrtm(first @ second).real)
    figure = clip_distances(true, made, CONFIG)["fid_clip"]
    assert figure.value == pytest.approx(expected, rel=1e-4)
    assert figure.to_dict() == {"value": figure.value, "ci95": None, "n": 120}


def test_the_kernel_distance_on_all_pictures_is_its_definition() -> None:
    true, made = features(0, count=60), features(1, 0.5, count=60)

    def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (first.astype(float) @ second.T / 6 + 1) ** 3

    within = [(kernel(rows, rows).sum() - np.trace(kernel(rows, rows))) / (60 * 59) for rows in (true, made)]
    expected = sum(within) - 2 * kernel(true, made).mean()
    assert clip_distances(true, made, CONFIG)["kid_clip"].value == pytest.approx(expected, rel=1e-4)


def test_sets_of_equal_look_lie_near_zero_and_others_do_not() -> None:
    same = clip_distances(features(0), features(0), CONFIG)
    assert same["fid_clip"].value == pytest.approx(0, abs=1e-6)
    near, far = (clip_distances(features(0), features(1, shift), CONFIG) for shift in (0.0, 1.0))
    for name in ("fid_clip", "kid_clip"):
        assert far[name].value > near[name].value + 1
    assert abs(near["kid_clip"].value) < 0.2


def test_the_draw_of_subsets_is_seeded_and_leaves_the_chance_of_others_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = clip_distances(features(0), features(1), CONFIG)["kid_clip"]
    assert torch.rand(1) == expected
    assert first == clip_distances(features(0), features(1), CONFIG)["kid_clip"]


def test_too_few_pictures_have_no_distance() -> None:
    few = clip_distances(features(0, count=6), features(1, count=6), CONFIG)
    assert [figure.to_dict() for figure in few.values()] == [{"value": None, "ci95": None, "n": 0}] * 2
    some = clip_distances(features(0, count=59), features(1, count=59), CONFIG)
    assert (some["fid_clip"].n, some["kid_clip"].n) == (59, 0)


def test_the_sets_must_be_of_one_size() -> None:
    with pytest.raises(VisavisError, match="as sets"):
        clip_distances(features(0), features(1, count=100), CONFIG)
