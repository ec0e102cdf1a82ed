"""Step 5: every picture of the data set through the frozen encoder and autoencoder, once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.steps.framework import Manifest, StepJob, StepResult, run_step


def encode_images(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    section = ("encode", "pack.image_encoder", "pack.vae")
    return run_step("encode_images", _body, recipe, context, inputs, output, section)


def _body(job: StepJob) -> StepResult:
    from visavis.data.published.tokens import TokenStore, encode
    from visavis.models.image_encoder import pool_tokens
    from visavis.packs.loaders import load_autoencoder, load_image_encoder

    encoder, autoencoder = load_image_encoder(job.pack), load_autoencoder(job.pack)
    config, scale = job.recipe.encode, autoencoder.config.scaling_factor
    counts = encode(
        job.folder("conversations"),
        job.work,
        lambda pictures: pool_tokens(encoder(pictures)) if config.pooled else encoder(pictures),
        lambda pictures: autoencoder.encode(pictures, return_dict=False)[0] * scale,
        encoder.config.image_size,
        config.batch_size,
        lambda done, total: job.progress(done, total, "pictures"),
    )
    store = TokenStore.open(job.work)
    megabytes = (store.tokens.nbytes + store.latents.nbytes) / 2**20
    return StepResult(
        counts, {"pictures": len(store.pictures), "samples": len(store.samples), "megabytes": megabytes}
    )
