"""Step 4: single-round sets and three-round chats by name, split by people, as shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.steps.framework import Manifest, StepJob, StepResult, run_step


def build_conversations(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    return run_step(
        "build_conversations", _body, recipe, context, inputs, output, ("conversations", "full_body.enabled")
    )


def _body(job: StepJob) -> StepResult:
    from collections import Counter

    from visavis.data.chats.conversations import build
    from visavis.data.published.shards import read_index

    counts = build(
        job.folder("pairs"),
        job.folder("captions"),
        job.folder("faces"),
        job.work,
        job.recipe.conversations,
        lambda done, total: job.progress(done, total, "samples"),
        full_body=job.folder("full_body") if job.recipe.full_body.enabled else None,
    )
    for name in ("card.md", "viewer.html"):
        job.tracker.log_artifact(job.work / name)
    sizes = Counter(f"{row['set']}.{row['split']}" for row in read_index(job.work))
    return StepResult(counts, {f"samples.{name}": float(count) for name, count in sizes.items()})
