"""Step 0: what the source holds, divided into parts that are curated side by side."""

from __future__ import annotations

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
    from visavis.data.intake.listing import list_items

    values = json.loads(recipe)
    source = values["clips"]["source"]
    listing = list_items(source, BucketConfig(**values["curate"]["buckets"])).hashed()
    if not listing.clips:
        raise VisavisError(
            f"clips.source {source} holds no clips", fix="point clips.source to a folder with video files"
        )

    def body(job: StepJob) -> StepResult:
        parts = listing.parts(job.recipe.curate.part_items)
        for number, part in enumerate(parts):
            part.save(part_file(job.work, number))
        counts = {"in": len(listing), "kept": len(listing), "dropped": {}}
        figures = {PARTS: len(parts), "clips": len(listing.clips), "pictures": len(listing.pictures)}
        return StepResult(counts, {name: float(value) for name, value in figures.items()})

    section = ("clips.source", "curate.part_items")
    return run_step("list_clips", body, recipe, context, inputs, output, section, listing.digest)


def part_file(listing: Path, number: int) -> Path:
    """Returns the file of a part in the folder that the step wrote."""
    return listing / f"part-{number:05d}.jsonl"
