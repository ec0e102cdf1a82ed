"""What the detokenizer gives back: PSNR and SSIM per picture, and faces before and after tuning on people.

PSNR is computed for each picture with the data range 255 and then averaged (torchmetrics by default averages
the squared error over the whole set, which favours easy pictures).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visavis.errors import VisavisError
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.faces import FaceFinder, embed_faces, similarity
from visavis.evaluation.intervals import Figure, bootstrap_mean, paired_difference
from visavis.evaluation.items import Picture, ReconstructionItem

if TYPE_CHECKING:
    import torch

MOST_DB = 100.0
"""PSNR of a perfect copy, which is infinite, is reported as this."""


@dataclass(frozen=True)
class ReconstructionScore:
    """What was measured on one picture; figures of `before` and `served` are None where none was given."""

    item_id: str
    cluster: str
    kind: str
    psnr: float
    ssim: float
    psnr_before: float | None
    ssim_before: float | None
    arcface: float | None
    arcface_before: float | None
    face_in_original: bool
    psnr_served: float | None = None


def psnr(first: Sequence[Picture], second: Sequence[Picture]) -> NDArray[np.float64]:
    """Returns the PSNR in dB of each pair of uint8 pictures, at most `MOST_DB`."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    values = [
        float(peak_signal_noise_ratio(b, a, data_range=255.0, reduction="elementwise_mean"))
        for a, b in _pairs(first, second)
    ]
    return np.minimum(np.asarray(values, dtype=np.float64), MOST_DB)


def ssim(first: Sequence[Picture], second: Sequence[Picture]) -> NDArray[np.float64]:
    """Returns the SSIM of each pair of uint8 pictures (11 x 11 Gaussian window, sigma 1.5)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = [
        float(structural_similarity_index_measure(b, a, data_range=255.0)) for a, b in _pairs(first, second)
    ]
    return np.asarray(values, dtype=np.float64)


def score_reconstruction(
    items: Sequence[ReconstructionItem], faces: FaceFinder | None, config: EvaluateConfig
) -> list[ReconstructionScore]:
    """Scores each reconstruction; with `faces`, also ArcFace similarity of close-ups to their originals."""
    originals = [item.original for item in items]
    after = [item.after for item in items]
    had = [index for index, item in enumerate(items) if item.before is not None]
    before = [item.before for item in items if item.before is not None]
    old_originals = [originals[index] for index in had]
    psnr_before = dict(zip(had, psnr(old_originals, before), strict=True))
    ssim_before = dict(zip(had, ssim(old_originals, before), strict=True))
    serving = [index for index, item in enumerate(items) if item.served is not None]
    served = [item.served for item in items if item.served is not None]
    psnr_served = dict(zip(serving, psnr([originals[index] for index in serving], served), strict=True))
    arcface, arcface_before, seen = _face_similarities(items, faces, config)
    return [
        ReconstructionScore(
            item_id=item.item_id,
            cluster=item.cluster_id or item.item_id,
            kind=item.kind,
            psnr=float(decibel),
            ssim=float(structure),
            psnr_before=float(psnr_before[index]) if index in psnr_before else None,
            ssim_before=float(ssim_before[index]) if index in ssim_before else None,
            arcface=arcface.get(index),
            arcface_before=arcface_before.get(index),
            face_in_original=index in seen,
            psnr_served=float(psnr_served[index]) if index in psnr_served else None,
        )
        for index, (item, decibel, structure) in enumerate(
            zip(items, psnr(originals, after), ssim(originals, after), strict=True)
        )
    ]


def summarise_reconstruction(
    scores: Sequence[ReconstructionScore], config: EvaluateConfig
) -> dict[str, Figure]:
    """Returns the figures of the scorecard's section `reconstruction`.

    `before`, `after` and `gain` rest on the same close-ups, those with a picture from before the tuning on
    people.
    """

    def mean(rows: Sequence[ReconstructionScore], values: Sequence[float]) -> Figure:
        return bootstrap_mean(
            values,
            clusters=[row.cluster for row in rows],
            samples=config.bootstrap_samples,
            seed=config.seed,
        )

    def gain(rows: Sequence[ReconstructionScore], new: Sequence[float], old: Sequence[float]) -> Figure:
        return paired_difference(
            new,
            old,
            clusters=[row.cluster for row in rows],
            samples=config.bootstrap_samples,
            seed=config.seed,
        )

    faces = [score for score in scores if score.kind == "face" and score.psnr_before is not None]
    new, old = [s.psnr for s in faces], [s.psnr_before or 0.0 for s in faces]
    figures = {
        "psnr_db": mean(scores, [score.psnr for score in scores]),
        "ssim": mean(scores, [score.ssim for score in scores]),
        "psnr_db_faces_before": mean(faces, old),
        "psnr_db_faces_after": mean(faces, new),
        "psnr_db_faces_gain": gain(faces, new, old),
        "ssim_faces_before": mean(faces, [s.ssim_before or 0.0 for s in faces]),
        "ssim_faces_after": mean(faces, [s.ssim for s in faces]),
        "ssim_faces_gain": gain(faces, [s.ssim for s in faces], [s.ssim_before or 0.0 for s in faces]),
    }
    if served := [score for score in scores if score.psnr_served is not None]:
        figures["psnr_db_served"] = mean(served, [score.psnr_served or 0.0 for score in served])
    for kind in sorted({score.kind for score in scores}):
        rows = [score for score in scores if score.kind == kind]
        figures[f"psnr_db_{kind}"] = mean(rows, [score.psnr for score in rows])
        figures[f"ssim_{kind}"] = mean(rows, [score.ssim for score in rows])
    # Where the detector sees the original's face, a reconstruction without a face counts as 0 (policy
    # "zero").
    known = [score for score in faces if score.face_in_original]
    if known:
        now, then = [s.arcface or 0.0 for s in known], [s.arcface_before or 0.0 for s in known]
        figures["arcface_faces_before"] = mean(known, then)
        figures["arcface_faces_after"] = mean(known, now)
        figures["arcface_faces_gain"] = gain(known, now, then)
    return figures


def _pairs(
    first: Sequence[Picture], second: Sequence[Picture]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields the pictures as float64 tensors [1, 3, H, W] (float32 rounds SSIM) in 0..255, pair by pair."""
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape:
            raise VisavisError(
                f"a reconstruction of {list(b.shape)} cannot be compared with an original of {list(a.shape)}",
                fix="resize the original to the model's picture size before it is handed over",
            )
        yield _tensor(a), _tensor(b)


def _tensor(picture: Picture) -> torch.Tensor:
    import torch

    return torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float64))[None]


def _face_similarities(
    items: Sequence[ReconstructionItem], faces: FaceFinder | None, config: EvaluateConfig
) -> tuple[dict[int, float], dict[int, float], set[int]]:
    """Returns ArcFace of original to `after` and `before` by item index, and which originals show a face."""
    if faces is None:
        return {}, {}, set()
    index = [i for i, item in enumerate(items) if item.kind == "face"]

    def embed(pictures: list[Picture]) -> list[np.ndarray | None]:
        return embed_faces(pictures, faces, paddings=config.det_paddings, several=config.several_faces)

    originals = dict(zip(index, embed([items[i].original for i in index]), strict=True))
    after = dict(zip(index, embed([items[i].after for i in index]), strict=True))
    had = [(i, before) for i in index if (before := items[i].before) is not None]
    old = dict(zip([i for i, _ in had], embed([picture for _, picture in had]), strict=True))

    def compare(found: dict[int, np.ndarray | None]) -> dict[int, float]:
        cosines = {i: similarity(originals[i], vector) for i, vector in found.items()}
        return {i: cosine for i, cosine in cosines.items() if cosine is not None}

    return compare(after), compare(old), {i for i, vector in originals.items() if vector is not None}
