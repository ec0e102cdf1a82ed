"""Step 5, for the full-body variant: each person painted from head to toe, kept if ArcFace knows them again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visavis.files import sha256_file
from visavis.packs import load_pack
from visavis.steps.framework import Manifest, StepJob, StepResult, run_step


def make_full_body(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`. Without `full_body.enabled` its result is empty."""
    values = json.loads(recipe)
    if not values["full_body"]["enabled"]:
        return run_step("make_full_body", _nothing, recipe, context, {}, output, ("full_body.enabled",))
    section = ["full_body", "conversations.prompts", "pack.faces"]
    if load_pack(values["pack"]).has("personaliser"):
        section.append("pack.personaliser")

    def painter() -> str:
        """Returns what the pictures depend on outside of recipe and inputs: the model version that paints them."""
        folder = values["full_body"]["model"]
        files = sorted(Path(folder).rglob("*")) if folder else []
        return "\n".join(sha256_file(path) for path in files if path.is_file())

    return run_step("make_full_body", _body, recipe, context, inputs, output, section, painter)


def _nothing(job: StepJob) -> StepResult:
    return StepResult({"in": 0, "kept": 0, "dropped": {}})


def _body(job: StepJob) -> StepResult:
    from visavis.chat.personalisers import load_personaliser
    from visavis.data.chats.full_body import full_body
    from visavis.packs.face_parts import load_faces
    from visavis.steps.grids import sheet

    recipe = job.recipe
    counts: dict[str, Any] = full_body(
        job.folder("pairs"),
        job.folder("captions"),
        job.folder("faces"),
        job.work,
        recipe.full_body,
        load_personaliser(job.pack, recipe.full_body, recipe.conversations.prompts),
        load_faces(job.pack.part("faces"), job.pack.settings("faces")),
        lambda done, total: job.progress(done, total, "people"),
    )
    kept = [(path, "") for path in sorted((job.work / "full_body").glob("*.png"))[:32]]
    if kept:
        job.tracker.log_image(sheet(kept, columns=8, height=96), "full_body.png")
    return StepResult(counts, {"kept_share": counts["kept"] / max(counts["in"], 1)})
