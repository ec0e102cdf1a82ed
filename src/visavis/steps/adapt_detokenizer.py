"""Step 11: the detokenizer learns to paint from what the MLLM really says, not only from what the encoder sees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.steps.framework import ENGINE, Manifest, StepJob, StepResult, run_step
from visavis.steps.tune_detokenizer import PEOPLE, score


def adapt_detokenizer(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    section = ("adapt", "rounds.plan_share", "detokenizer.sample_steps", *ENGINE, "pack.mllm", "pack.vae")
    return run_step("adapt_detokenizer", _body, recipe, context, inputs, output, section)


def _body(job: StepJob) -> StepResult:
    import numpy as np
    import torch

    from visavis.chat.template import Template
    from visavis.data.published.tokens import TokenStore
    from visavis.models.detokenizer import Detokenizer
    from visavis.models.device import compute_device
    from visavis.models.mllm import Mllm
    from visavis.packs.loaders import load_autoencoder, load_mllm
    from visavis.training.detokenizer import (
        balanced,
        fit_tokens,
        kinds_of_answers,
        predicted_tokens,
        reconstruct,
        source_latents,
    )
    from visavis.training.mllm import with_plan

    config, store = job.recipe.adapt, TokenStore.open(job.folder("tokens"))
    mllm = Mllm.from_pretrained(job.folder("mllm")).eval().to(compute_device())
    template = Template(load_mllm(job.pack)[1], mllm.config.image_tokens, mllm.config.views)
    detokenizer = Detokenizer.from_pretrained(job.folder("detokenizer") / "people")
    chats = store.select(("pair", "rounds"), "train")[: config.max_samples]
    samples = [with_plan(chat, job.recipe.rounds.plan_share) for chat in chats]
    said, rows = predicted_tokens(mllm, template, store, samples, lambda a, b: job.progress(a, b, "chats"))
    # A whole picture from words leaves most open and is the rarest answer: it would hardly be learned.
    kept = balanced(kinds_of_answers(samples))
    said, rows = said[kept], rows[kept]
    wanted = detokenizer.config.image_tokens
    seen_rows = store.rows(PEOPLE, "train")
    share = (1 - config.own_share) / max(config.own_share, 1e-6)
    seen_rows = np.resize(seen_rows, max(1, round(len(rows) * share)))
    seen = fit_tokens(torch.from_numpy(store.tokens[seen_rows].astype(np.float32)), wanted).half().numpy()
    painted = np.concatenate([rows, seen_rows])
    sources = None
    if detokenizer.config.condition_image:
        sources = source_latents(store, painted, PEOPLE, "train")
    reconstruct(
        detokenizer,
        np.concatenate([said, seen]),
        store.latents[painted],
        config,
        job.scratch,
        lambda values, step: job.tracker.log_metrics(values, step=step),
        lambda done, total: job.progress(done, total, "steps"),
        job.engine,
        sources,
    )
    autoencoder = load_autoencoder(job.pack).to(compute_device())
    detokenizer.save_pretrained(job.work, autoencoder=autoencoder)
    steps = job.recipe.detokenizer.sample_steps
    metrics = score(job, detokenizer, autoencoder, store, steps, "after_adapt")
    return StepResult({"in": len(samples), "kept": len(samples), "dropped": {}}, metrics)
