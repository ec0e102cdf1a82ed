"""Step 5: every picture of the data set through the frozen encoder and autoencoder, once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from visavis.files import sha256_bytes
from visavis.steps.framework import Manifest, StepJob, StepResult, run_step
from visavis.steps.keys import code_version, resolve_section


def encode_images(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    section = ("encode", "pack.image_encoder", "pack.vae")
    return run_step("encode_images", _body, recipe, context, inputs, output, section)


def _body(job: StepJob) -> StepResult:
    from visavis.data.published.tokens import Encoder, TokenStore, encode
    from visavis.models.autoencoder import to_latents
    from visavis.models.device import compute_device
    from visavis.models.image_encoder import pool_tokens
    from visavis.packs.loaders import load_autoencoder, load_image_encoder

    device = compute_device()
    vit, autoencoder = load_image_encoder(job.pack).to(device), load_autoencoder(job.pack).to(device)
    config = job.recipe.encode

    def seen(pictures: Any) -> Any:
        return vit(pictures.to(device))

    encoder = Encoder(
        tokens=lambda pictures: pool_tokens(seen(pictures)) if config.pooled else seen(pictures),
        latents=lambda pictures: to_latents(autoencoder, pictures),
        image_size=vit.config.image_size,
        batch_size=config.batch_size,
        key=_encoder_key(job),
    )
    counts = encode(
        job.folder("conversations"),
        job.work,
        encoder,
        known=_known(job, encoder.key),
        shard_rows=config.shard_rows,
        progress=lambda done, total: job.progress(done, total, "samples"),
    )
    store = TokenStore.open(job.work)
    megabytes = (store.tokens.nbytes + store.latents.nbytes) / 2**20
    kept, repeats = counts["encoded"] + counts["cached"], counts["encoded_already"]
    return StepResult(
        {"in": counts["in"], "kept": kept, "dropped": {"encoded_already": repeats} if repeats else {}},
        {
            "pictures": len(store.pictures),
            "encoded": counts["encoded"],
            "cached": counts["cached"],
            "samples": len(store.samples),
            "megabytes": megabytes,
        },
    )


def _known(job: StepJob, encoder: str) -> list[Path]:
    """Returns earlier results of the same encoder.

    They are the cache: what is removed or forgotten there is in no second place. Of those in a bucket, only the
    largest one is worth its way here.
    """
    from visavis.data.published.token_shards import FACTS_NAME, Facts

    known = [result for result in job.store.results(job.name) if FACTS_NAME in result.files]
    facts = {result.key: Facts.read(result.file(FACTS_NAME).parent) for result in known}
    alike = [result for result in known if facts[result.key].encoder == encoder]
    if not job.store.near:
        alike = sorted(alike, key=lambda result: facts[result.key].rows)[-1:]
    return [result.folder for result in alike]


def _encoder_key(job: StepJob) -> str:
    """Hash of all that tokens and latents depend on beside the picture."""
    parts = resolve_section(json.loads(job.recipe_json), ("pack.image_encoder", "pack.vae", "encode.pooled"))
    code = ("visavis.models.image_encoder", "visavis.models.autoencoder")
    parts["code"] = [*map(code_version, code), version("diffusers")]
    return sha256_bytes(json.dumps(parts, sort_keys=True).encode())
