"""Steps 7 to 10: the stages of MLLM tuning; each starts from the checkpoint of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.steps.framework import ENGINE, Manifest, StepJob, StepResult, run_step


def tune_mllm(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path, stage: str
) -> Manifest:
    """Runs one of the three stages of section 3.2; see `visavis.steps`."""
    section = (f"mllm.{stage}", "mllm_model", *ENGINE, "pack.mllm")

    def body(job: StepJob) -> StepResult:
        return tune_stage(job, getattr(job.recipe.mllm, stage))

    body.__module__ = __name__
    return run_step(f"tune_mllm_{stage}", body, recipe, context, inputs, output, section)


def tune_stage(job: StepJob, config: object) -> StepResult:
    """Tunes the pack's MLLM, or the one handed in, on the stage's sets and saves it."""
    from visavis.chat.template import Template
    from visavis.data.published.tokens import TokenStore
    from visavis.models.mllm import Mllm
    from visavis.packs.loaders import load_mllm
    from visavis.training.config import StageConfig
    from visavis.training.mllm import tune
    from visavis.training.packing import TOO_LONG
    from visavis.training.preparation import lora_of, prepare

    assert isinstance(config, StageConfig)
    model, tokenizer = load_mllm(job.pack)
    parent = "pack"
    if "mllm" in job.inputs:
        model, parent = Mllm.from_pretrained(job.folder("mllm")), job.inputs["mllm"].key
    store, settings = TokenStore.open(job.folder("tokens")), job.recipe.mllm_model
    fresh = prepare(model, settings, store.tokens.shape[1], first="mllm" not in job.inputs, seed=config.seed)
    job.tracker.set_tags({"starts_from": parent, "untrained_at_start": ", ".join(fresh) or "nothing"})
    lora = lora_of(model, settings.lora, config.seed)
    template = Template(tokenizer, model.config.image_tokens, model.config.views)
    template.check(job.folder("mllm") if "mllm" in job.inputs else job.pack.part("mllm"))
    metrics = tune(
        model,
        template,
        store,
        config,
        job.scratch,
        lambda values, step: job.tracker.log_metrics(values, step=step),
        lambda done, total: job.progress(done, total, "steps"),
        job.engine,
    )
    if lora is not None:
        if settings.lora.keep_adapter:
            lora.save_pretrained(job.work / "adapter")
        lora.merge(model)
    model.save_pretrained(job.work)
    tokenizer.save_pretrained(job.work)
    template.save_pretrained(job.work)
    count = len(store.select(config.sets, "train"))
    # Under names of their own: those of the curves would get a point more, at step 0.
    final = {
        f"final_{name}": metrics[name] for name in ("loss", "text_loss", "image_loss") if name in metrics
    }
    dropped = int(metrics[TOO_LONG])
    reasons = {TOO_LONG: dropped} if dropped else {}
    return StepResult({"in": count, "kept": count - dropped, "dropped": reasons}, final)
