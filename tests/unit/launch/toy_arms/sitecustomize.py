"""The steps of an arm, done in a moment: Python imports this file first where its folder is on the path."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def _body(job: Any) -> Any:
    from visavis.files import write_json
    from visavis.steps.framework import StepResult

    write_json(job.work / "scorecard.json", {"inputs": sorted(job.inputs)})
    return StepResult({"in": 1, "kept": 1, "dropped": {}}, {"identity.margin": 0.25})


def _step(name: str) -> Any:
    def step(recipe: str, context: str, inputs: Any, output: Any, stage: str = "") -> Any:
        from visavis.steps.framework import run_step

        section = ("detokenizer",) if name == "tune_detokenizer" else ("mllm",)
        return run_step(f"{name}_{stage}".rstrip("_"), _body, recipe, context, inputs, output, section)

    return step


for _name in (
    "encode_images",
    "tune_detokenizer",
    "tune_mllm",
    "tune_rounds",
    "adapt_detokenizer",
    "score_arm",
):
    _module = ModuleType(f"visavis.steps.{_name}")
    setattr(_module, _name, _step(_name))
    _module.STEP = _name  # type: ignore[attr-defined]
    sys.modules[_module.__name__] = _module
