"""Step 1, many times side by side: each clip of one part judged by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.data.config import DECIDING
from visavis.steps.framework import Manifest, StepJob, StepResult, run_step
from visavis.steps.list_clips import part_name


def curate_part(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path, part: str
) -> Manifest:
    """Runs the step for the part with a number; see `visavis.steps`.

    Its key is made of what is in the part and not of the whole listing: new clips do not make old parts anew.
    """
    from visavis.data.intake.listing import Listing

    listing = Listing.load(Manifest.read(inputs["listing"]).file(part_name(int(part))))

    def body(job: StepJob) -> StepResult:
        from visavis.data.curation.clips import curate_part as judge
        from visavis.packs.face_parts import load_faces

        faces = load_faces(job.pack.part("faces"), job.pack.settings("faces"))
        judge(
            listing,
            job.work,
            job.recipe.curate,
            faces,
            lambda done, total: job.progress(done, total, "clips and pictures"),
        )
        return StepResult({"in": len(listing), "kept": len(listing), "dropped": {}})

    return run_step(
        f"curate_part_{part}", body, recipe, context, {}, output, (*DECIDING, "pack.faces"), listing.digest
    )
