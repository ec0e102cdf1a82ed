"""Step 6: the text-to-image model of the pack becomes a detokenizer: natural pictures first, then people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.steps.framework import Manifest, StepJob, StepResult, run_step

if TYPE_CHECKING:
    from visavis.data.published.tokens import TokenStore
    from visavis.models.detokenizer import Detokenizer

PEOPLE = ("inpaint", "pair", "rounds")
_SCORED = 128


def tune_detokenizer(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    section = ("detokenizer", "pack.text_to_image", "pack.vae")
    return run_step("tune_detokenizer", _body, recipe, context, inputs, output, section)


def _body(job: StepJob) -> StepResult:
    import torch

    from visavis.data.published.tokens import TokenStore
    from visavis.models.detokenizer import Detokenizer
    from visavis.packs.loaders import load_autoencoder, load_text_to_image
    from visavis.training.baselines import unet_like, untrained_like
    from visavis.training.detokenizer import reconstruct

    store, config = TokenStore.open(job.folder("tokens")), job.recipe.detokenizer
    denoiser, scheduler = load_text_to_image(job.pack)
    torch.manual_seed(config.natural.seed)
    if config.denoiser == "unet":
        denoiser = unet_like(denoiser)
    elif not config.from_pretrained:
        denoiser = untrained_like(denoiser)
    autoencoder = load_autoencoder(job.pack)
    detokenizer = Detokenizer.from_text_to_image(denoiser, scheduler, store.tokens.shape[2])
    total = config.natural.steps + config.people.steps
    metrics: dict[str, float] = {}
    stages = (
        ("natural", ("natural",), config.natural, 0),
        ("people", PEOPLE, config.people, config.natural.steps),
    )
    for name, sets, stage, offset in stages:
        rows = store.rows(sets, "train")

        def log(values: dict[str, float], step: int, offset: int = offset) -> None:
            job.tracker.log_metrics(values, step=offset + step)

        def progress(done: int, _: int, offset: int = offset) -> None:
            job.progress(offset + done, total, "steps")

        work = job.scratch / name
        reconstruct(detokenizer, store.tokens[rows], store.latents[rows], stage, work, log, progress)
        detokenizer.save_pretrained(job.work / name)
        metrics |= score(job, detokenizer, autoencoder, store, config.sample_steps, f"after_{name}")
    count = sum(len(store.rows(sets, "train")) for sets in (("natural",), PEOPLE))
    return StepResult({"in": count, "kept": count, "dropped": {}}, metrics)


def score(
    job: StepJob, detokenizer: Detokenizer, autoencoder: Any, store: TokenStore, sample_steps: int, label: str
) -> dict[str, float]:
    """Measures the mean PSNR on validation pictures of people, and shows some beside their originals."""
    import numpy as np
    import torch

    from visavis.chat.model import decode_latents
    from visavis.evaluation.reconstruction import psnr
    from visavis.steps.grids import rows_of_pictures
    from visavis.training.detokenizer import fit_tokens

    rows = store.rows(PEOPLE, "val")[:_SCORED]
    if not len(rows):
        return {}
    tokens = fit_tokens(
        torch.from_numpy(store.tokens[rows].astype(np.float32)), detokenizer.config.image_tokens
    )
    painted = decode_latents(autoencoder, detokenizer.eval().sample(tokens, sample_steps))
    truth = store.pictures[rows]
    job.tracker.log_image(
        rows_of_pictures([list(truth[:12]), list(painted[:12])]), f"reconstruction_{label}.png"
    )
    return {f"psnr_db_{label}": float(np.mean(psnr(list(painted), list(truth))))}
