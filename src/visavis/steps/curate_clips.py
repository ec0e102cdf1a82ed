"""Step 1: a folder of clips becomes pairs of frames that show the same two people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from visavis.errors import VisavisError
from visavis.files import read_json, read_jsonl, sha256_bytes, sha256_file
from visavis.steps.framework import Manifest, StepJob, StepResult, run_step


def curate_clips(recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    source = Path(json.loads(recipe)["clips"]["source"])
    section = ("curate", "pack.faces")
    return run_step("curate_clips", _body, recipe, context, inputs, output, section, lambda: _digest(source))


def _digest(source: Path) -> str:
    """Returns a hash over the clips and pictures of the source, and nothing else that may lie beside them."""
    from visavis.data.sources import MANIFEST_NAME, list_clips, list_pictures

    clips = list_clips(source)
    if not clips:
        raise VisavisError(
            f"clips.source {source} holds no clips", fix="point clips.source to a folder with video files"
        )
    items = [(item.ref, item.path) for item in (*clips, *list_pictures(source))]
    items.append((MANIFEST_NAME, source / MANIFEST_NAME))
    lines = [
        f"{ref}\0{sha256_file(path) if path is not None and path.is_file() else ''}\n" for ref, path in items
    ]
    return sha256_bytes("".join(lines).encode())


def _body(job: StepJob) -> StepResult:
    from visavis.data.clips import curate
    from visavis.packs.face_parts import load_faces
    from visavis.steps.grids import sheet

    source = Path(job.recipe.clips.source)
    faces = load_faces(job.pack.part("faces"), job.pack.settings("faces"))
    counts = curate(
        source, job.work, job.recipe.curate, faces, lambda done, total: job.progress(done, total, "clips")
    )
    if not counts["kept"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items())
        raise VisavisError(
            f"none of the {counts['in']} clips in {source} shows the same two people ({reasons})",
            fix="add clips of two people who stay in the picture from the first frame to the last",
        )
    pairs = read_jsonl(job.work / "pairs.jsonl")
    frames = [(job.work / pair[name], "") for pair in pairs[:12] for name in ("first", "last")]
    job.tracker.log_image(sheet(frames, columns=8), "pairs.png")
    dropped = [(path, path.stem[:8]) for path in sorted((job.work / "dropped").glob("*.jpg"))[:24]]
    if dropped:
        job.tracker.log_image(sheet(dropped, columns=6, height=96), "dropped.png")
    pictures = read_json(job.work / "summary.json")["pictures"]
    return StepResult(counts, {"pairs": counts["kept"], "pictures": pictures["kept"]})
