"""Step 2: a caption with two names for every pair, and which name belongs to which face."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.files import read_jsonl
from visavis.steps.framework import Manifest, StepJob, StepResult, run_step


def describe_clips(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    section = ("describe", "pack.mllm", "pack.image_encoder")
    return run_step("describe_clips", _body, recipe, context, inputs, output, section)


def _body(job: StepJob) -> StepResult:
    from visavis.chat.model import ChatModel
    from visavis.data.captions import describe

    captioner = ChatModel.from_pack(job.pack)
    counts = describe(
        job.folder("pairs"),
        job.work,
        job.recipe.describe,
        captioner.ask,
        lambda done, total: job.progress(done, total, "pairs"),
    )
    captions = read_jsonl(job.work / "captions.jsonl")
    job.tracker.log_text("\n".join(row["caption"] for row in captions[:100]) + "\n", "captions.txt")
    return StepResult(counts, {"captions": len(captions)})
