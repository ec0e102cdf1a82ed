"""Step 2: judged parts put together become pairs of frames that show the same two people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.data.config import DECIDING, FRAMES
from visavis.errors import VisavisError
from visavis.files import read_json, read_jsonl
from visavis.steps.framework import Manifest, StepJob, StepResult, run_step


def curate_clips(recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path) -> Manifest:
    """Runs the step; see `visavis.steps`. Inputs: every judged part, under any name."""
    return run_step("curate_clips", _body, recipe, context, inputs, output, DECIDING)


def _body(job: StepJob) -> StepResult:
    from visavis.data.curation.clips import merge
    from visavis.steps.grids import sheet

    parts = sorted(job.inputs.values(), key=_number)
    counts = merge([part.folder for part in parts], job.work, job.recipe.curate)
    if not counts["kept"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items())
        raise VisavisError(
            f"none of the {counts['in']} clips in {job.recipe.clips.source} shows the same two people ({reasons})",
            fix="add clips of two people who stay in the picture from the first frame to the last",
        )
    pairs = read_jsonl(job.work / "pairs.jsonl")
    frames = [(job.work / pair[name], "") for pair in pairs[:12] for name in FRAMES]
    job.tracker.log_image(sheet(frames, columns=8), "pairs.png")
    dropped = [(path, path.stem[:8]) for path in sorted((job.work / "dropped").glob("*.jpg"))[:24]]
    if dropped:
        job.tracker.log_image(sheet(dropped, columns=6, height=96), "dropped.png")
    pictures = read_json(job.work / "summary.json")["pictures"]
    return StepResult(counts, {"pairs": counts["kept"], "pictures": pictures["kept"]})


def _number(part: Manifest) -> int:
    return int(part.step.rpartition("_")[2])
