"""Step 6: the text-to-image model of the pack becomes a detokenizer: natural pictures first, then people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.files import write_json
from visavis.steps.framework import ENGINE, Manifest, StepJob, StepResult, run_step

if TYPE_CHECKING:
    from visavis.data.published.tokens import TokenStore
    from visavis.models.detokenizer import Detokenizer
    from visavis.training.engine.callbacks import Callback

PEOPLE = ("inpaint", "pair", "rounds")
_SCORED, _SHOWN = 128, 12


def tune_detokenizer(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    section = ("detokenizer", *ENGINE, "pack.text_to_image", "pack.vae")
    return run_step("tune_detokenizer", _body, recipe, context, inputs, output, section)


def _body(job: StepJob) -> StepResult:
    import torch

    from visavis.data.published.tokens import TokenStore
    from visavis.models.detokenizer import Detokenizer
    from visavis.models.device import compute_device
    from visavis.packs.loaders import load_autoencoder, load_text_to_image
    from visavis.training.baselines import unet_like, untrained_like
    from visavis.training.detokenizer import reconstruct, source_latents

    store, config = TokenStore.open(job.folder("tokens")), job.recipe.detokenizer
    denoiser, scheduler = load_text_to_image(job.pack)
    torch.manual_seed(config.natural.seed)
    if config.denoiser == "unet":
        denoiser = unet_like(denoiser)
    elif not config.from_pretrained:
        denoiser = untrained_like(denoiser)
    autoencoder = load_autoencoder(job.pack).to(compute_device())
    detokenizer = Detokenizer.from_text_to_image(
        denoiser,
        scheduler,
        store.tokens.shape[2],
        config.image_tokens,
        objective=config.objective,
        shift=config.shift,
        condition_dropout=config.condition_dropout,
        condition_image=config.stage2,
        guidance=config.guidance,
        solver=config.solver,
    )
    _tell_start(job, detokenizer)
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

        sources = None
        if config.stage2:
            sources = source_latents(store, rows, sets, "train")
        reconstruct(
            detokenizer,
            store.tokens[rows],
            store.latents[rows],
            stage,
            job.scratch / name,
            log,
            progress,
            job.engine,
            sources,
            _samples(job, detokenizer, autoencoder, store, name),
        )
        detokenizer.save_pretrained(job.work / name, autoencoder=autoencoder)
        metrics |= score(job, detokenizer, autoencoder, store, config.sample_steps, f"after_{name}")
    count = sum(len(store.rows(sets, "train")) for sets in (("natural",), PEOPLE))
    return StepResult({"in": count, "kept": count, "dropped": {}}, metrics)


def _samples(
    job: StepJob, detokenizer: Detokenizer, autoencoder: Any, store: TokenStore, name: str
) -> list[Callback]:
    """Returns what shows a few validation pictures while the detokenizer learns, if the recipe wants to see them."""
    import numpy as np
    import torch

    from visavis.chat.model import decode_latents
    from visavis.steps.grids import rows_of_pictures
    from visavis.training.detokenizer import fit_tokens
    from visavis.training.engine.callbacks import Samples

    every, config = job.recipe.engine.sample_every, job.recipe.detokenizer
    rows = store.rows(PEOPLE, "val")[:_SHOWN]
    if not every or not len(rows):
        return []
    tokens = fit_tokens(torch.from_numpy(store.tokens[rows].astype(np.float32)), config.image_tokens)

    def show(done: int) -> None:
        painted = decode_latents(autoencoder, detokenizer.eval().sample(tokens, config.sample_steps))
        detokenizer.train()
        sheet = rows_of_pictures([list(store.pictures[rows]), list(painted)])
        job.tracker.log_image(sheet, f"samples_{name}_{done:06d}.png")

    return [Samples(show, every)]


def _tell_start(job: StepJob, detokenizer: Detokenizer) -> None:
    """Writes down what the detokenizer took over from the text-to-image model, and what begins untrained."""
    start = detokenizer.initialisation
    if start is None:
        return
    write_json(job.work / "initialisation.json", asdict(start))
    job.tracker.set_tags(
        {
            "kept_share_at_start": f"{start.kept_share:.3f}",
            "widened_at_start": ", ".join(start.widened) or "nothing",
            "untrained_at_start": ", ".join(start.fresh) or "nothing",
        }
    )


def score(
    job: StepJob, detokenizer: Detokenizer, autoencoder: Any, store: TokenStore, sample_steps: int, label: str
) -> dict[str, float]:
    """Measures the mean PSNR on validation pictures of people, and shows some beside their originals."""
    import numpy as np
    import torch

    from visavis.chat.model import decode_latents
    from visavis.evaluation.reconstruction import psnr
    from visavis.steps.grids import rows_of_pictures
    from visavis.training.detokenizer import fit_tokens, source_latents

    rows = store.rows(PEOPLE, "val")[:_SCORED]
    if not len(rows):
        return {}
    tokens = fit_tokens(
        torch.from_numpy(store.tokens[rows].astype(np.float32)), detokenizer.config.image_tokens
    )
    sources = None
    if detokenizer.config.condition_image:
        sources = torch.from_numpy(source_latents(store, rows, PEOPLE, "val").astype(np.float32))
    painted = decode_latents(autoencoder, detokenizer.eval().sample(tokens, sample_steps, sources=sources))
    truth = store.pictures[rows]
    job.tracker.log_image(
        rows_of_pictures([list(truth[:_SHOWN]), list(painted[:_SHOWN])]), f"reconstruction_{label}.png"
    )
    return {f"psnr_db_{label}": float(np.mean(psnr(list(painted), list(truth))))}
