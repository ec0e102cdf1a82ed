"""Step 2: a caption with two names for every pair, and which name belongs to which face.

The pack's parts decide who does it: a `captioner` (vision-language model) looks at the pictures, else the pack's own
conversational model; a `namer` (chat model) writes the captions, else rules do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from visavis.files import read_jsonl
from visavis.packs import Pack, load_pack
from visavis.steps.framework import Manifest, StepJob, StepResult, run_step

if TYPE_CHECKING:
    from visavis.data.describing.captions import Captioner
    from visavis.data.describing.namer import Namer
    from visavis.recipes import Recipe


def describe_clips(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    parts = described_by(load_pack(str(json.loads(recipe)["pack"])))
    section = ("describe", *(f"pack.{part}" for part in parts))
    return run_step("describe_clips", _body, recipe, context, inputs, output, section)


def described_by(pack: Pack) -> list[str]:
    """Returns the parts of the pack that describe its clips."""
    seeing = ["captioner"] if pack.has("captioner") else ["mllm", "image_encoder"]
    return [*seeing, "namer"] if pack.has("namer") else seeing


def _captioner(pack: Pack) -> Captioner:
    if pack.has("captioner"):
        from visavis.packs.language_parts import load_captioner

        return load_captioner(pack.part("captioner"), pack.settings("captioner"))
    from visavis.chat.model import ChatModel

    return ChatModel.from_pack(pack).ask


def _namer(pack: Pack, recipe: Recipe) -> Namer:
    if pack.has("namer"):
        from visavis.data.describing.chat_namer import ChatNamer
        from visavis.packs.language_parts import load_namer

        return ChatNamer(load_namer(pack.part("namer"), pack.settings("namer")), recipe.describe)
    from visavis.data.describing.namer import RuleNamer

    return RuleNamer(recipe.describe)


def _body(job: StepJob) -> StepResult:
    from visavis.data.describing.captions import describe

    counts = describe(
        job.folder("pairs"),
        job.work,
        job.recipe.describe,
        _captioner(job.pack),
        lambda done, total: job.progress(done, total, "pairs"),
        _namer(job.pack, job.recipe),
    )
    captions = read_jsonl(job.work / "captions.jsonl")
    job.tracker.log_text("\n".join(row["caption"] for row in captions[:100]) + "\n", "captions.txt")
    return StepResult(counts, {"captions": len(captions)})
