"""Step 3: every face cut out of its picture by SAM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.steps.framework import Manifest, StepJob, StepResult, run_step


def segment_faces(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    return run_step("segment_faces", _body, recipe, context, inputs, output, ("segment", "pack.segmenter"))


def _body(job: StepJob) -> StepResult:
    import torch

    from visavis.data.curation.masks import segment
    from visavis.packs.loaders import load_segmenter
    from visavis.steps.grids import sheet

    counts = segment(
        job.folder("pairs"),
        job.work,
        job.recipe.segment,
        load_segmenter(job.pack, device="cuda" if torch.cuda.is_available() else "cpu"),
        lambda done, total: job.progress(done, total, "pairs"),
    )
    faces = [(path, "") for path in sorted((job.work / "faces").glob("*.png"))[:32]]
    job.tracker.log_image(sheet(faces, columns=8, height=96), "faces.png")
    return StepResult(counts, {"faces": counts["kept"]})
