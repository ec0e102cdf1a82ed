"""Step 0: what the source holds, divided into parts that are curated side by side."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from visavis.errors import VisavisError
from visavis.steps.framework import Manifest, StepJob, StepResult, run_step

PARTS = "parts"
"""Figure of the manifest: how many parts there are."""


def list_clips(recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    from visavis.data.config import BucketConfig
    from visavis.data.intake.listing import Listing, list_items

    @functools.cache
    def listing() -> Listing:
        values = json.loads(recipe)
        source = values["clips"]["source"]
        found = list_items(source, BucketConfig(**values["curate"]["buckets"])).hashed()
        if not found.clips:
            raise VisavisError(
                f"clips.source {source} holds no clips", fix="point clips.source to a folder with video files"
            )
        return found

    def body(job: StepJob) -> StepResult:
        found = listing()
        parts = found.parts(job.recipe.curate.part_items)
        for number, part in enumerate(parts):
            part.save(job.work / part_name(number))
        counts = {"in": len(found), "kept": len(found), "dropped": {}}
        figures = {PARTS: len(parts), "clips": len(found.clips), "pictures": len(found.pictures)}
        return StepResult(counts, {name: float(value) for name, value in figures.items()})

    section = ("clips.source", "curate.part_items")
    return run_step("list_clips", body, recipe, context, inputs, output, section, lambda: listing().digest())


def part_name(number: int) -> str:
    """Returns the name of the file of a part."""
    return f"part-{number:05d}.jsonl"
