from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from torchmetrics.image import PeakSignalNoiseRatio

from visavis.errors import VisavisError
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.items import ReconstructionItem
from visavis.evaluation.reconstruction import (
    MOST_DB,
    psnr,
    score_reconstruction,
    ssim,
    summarise_reconstruction,
)

from .conftest import COLOURS, FakeFaces, person

CONFIG = EvaluateConfig(bootstrap_samples=300)


def blurred(image: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def test_psnr_is_the_definition_and_that_of_torchmetrics_per_picture() -> None:
    import torch

    rng = np.random.default_rng(0)
    first = list(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
    second = [blurred(image, rng, 4 * (index + 1)) for index, image in enumerate(first)]
    definition = [
        10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))
        for a, b in zip(first, second, strict=True)
    ]
    assert psnr(first, second) == pytest.approx(definition, abs=1e-4)
    metric = PeakSignalNoiseRatio(data_range=255.0, reduction="none", dim=(1, 2, 3))
    stacked = [torch.from_numpy(np.stack(images).astype(np.float32)) for images in (second, first)]
    assert psnr(first, second) == pytest.approx(metric(*stacked).numpy(), abs=1e-4)


def test_a_perfect_copy_is_finite() -> None:
    image = person("mia")
    assert psnr([image], [image])[0] == MOST_DB
    assert ssim([image], [image])[0] == pytest.approx(1)


def test_ssim_is_that_of_scikit_image_per_picture() -> None:
    rng = np.random.default_rng(4)
    first = list(rng.integers(0, 256, (3, 40, 32, 3), dtype=np.uint8))
    second = [blurred(image, rng, 12 * (index + 1)) for index, image in enumerate(first)]

    def reference(a: np.ndarray, b: np.ndarray) -> float:
        # scikit-image leaves out a border of half a window, torchmetrics mirrors the picture into it
        a, b = (np.pad(image, ((5, 5), (5, 5), (0, 0)), mode="reflect") for image in (a, b))
        settings = {"gaussian_weights": True, "use_sample_covariance": False}
        return structural_similarity(a, b, data_range=255, channel_axis=-1, **settings)

    expected = [reference(a, b) for a, b in zip(first, second, strict=True)]
    assert ssim(first, second) == pytest.approx(expected, abs=1e-6)


def test_ssim_falls_with_noise_and_is_symmetric() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    light, heavy = blurred(image, rng, 5), blurred(image, rng, 60)
    assert ssim([image], [light])[0] > ssim([image], [heavy])[0]
    assert ssim([image], [heavy])[0] == pytest.approx(ssim([heavy], [image])[0], abs=1e-5)


def test_faces_before_and_after_rest_on_the_same_pictures(faces: FakeFaces) -> None:
    rng = np.random.default_rng(2)
    items = []
    for index in range(24):
        original = person(list(COLOURS)[index % 6], rng)
        items.append(
            ReconstructionItem(
                f"face-{index}",
                "face",
                original,
                blurred(original, rng, 8),
                blurred(original, rng, 16),
                f"p{index % 6}",
            )
        )
    items += [
        ReconstructionItem(f"n{i}", "natural", person("noah"), blurred(person("noah"), rng, 4))
        for i in range(5)
    ]
    items.append(ReconstructionItem("no-before", "face", person("mia"), person("mia")))
    figures = summarise_reconstruction(score_reconstruction(items, faces, CONFIG), CONFIG)
    assert figures["psnr_db"].n == 30
    assert figures["psnr_db_faces_before"].n == figures["psnr_db_faces_after"].n == 24
    assert figures["psnr_db_faces_gain"].ci95[0] > 4
    assert figures["psnr_db_faces_gain"].value == pytest.approx(
        figures["psnr_db_faces_after"].value - figures["psnr_db_faces_before"].value
    )
    assert figures["psnr_db_natural"].n == figures["ssim_natural"].n == 5
    assert figures["ssim_faces_gain"].value == pytest.approx(
        figures["ssim_faces_after"].value - figures["ssim_faces_before"].value
    )
    assert figures["arcface_faces_after"].n == 24
    assert figures["arcface_faces_after"].value >= figures["arcface_faces_before"].value - 0.01


def test_a_reconstruction_that_loses_the_face_counts_as_zero(faces: FakeFaces) -> None:
    gray = np.full_like(person("mia"), 128)
    items = [ReconstructionItem(f"f{i}", "face", person("mia"), person("mia"), gray) for i in range(4)]
    figures = summarise_reconstruction(score_reconstruction(items, faces, CONFIG), CONFIG)
    assert figures["arcface_faces_before"].value == 0
    assert figures["arcface_faces_after"].value == pytest.approx(1)


def test_without_faces_the_rest_is_still_scored() -> None:
    items = [
        ReconstructionItem(f"f{i}", "face", person("mia"), person("mia"), person("mia")) for i in range(3)
    ]
    figures = summarise_reconstruction(score_reconstruction(items, None, CONFIG), CONFIG)
    assert "arcface_faces_after" not in figures
    assert figures["psnr_db_faces_after"].value == MOST_DB
    assert summarise_reconstruction([], CONFIG)["psnr_db"].value is None


def test_sizes_must_match() -> None:
    with pytest.raises(VisavisError, match="cannot be compared"):
        psnr([person("mia")], [person("mia")[:32]])
