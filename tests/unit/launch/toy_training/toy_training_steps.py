"""A step that trains one number on as many processes as there are; `stage` says how it ends."""

from __future__ import annotations

import os
from typing import Any


def tune_toy(recipe: str, context: str, inputs: dict[str, Any], output: Any, stage: str) -> Any:
    from visavis.steps.framework import run_step

    bodies = {"good": good, "refused": refused, "broken": broken}
    return run_step(f"tune_toy_{stage}", bodies[stage], recipe, context, inputs, output, ("seed",))


def good(job: Any) -> Any:
    from visavis.steps.framework import StepResult

    total = job.recipe.seed
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch
        import torch.distributed as team

        team.init_process_group("gloo")
        value = torch.tensor(team.get_rank() + 1)
        team.all_reduce(value)
        team.destroy_process_group()
        total += int(value)
    (job.work / "weights.txt").write_text(str(total))
    return StepResult({"in": 1, "kept": 1, "dropped": {}}, {"total": total})


def refused(job: Any) -> Any:
    from visavis.errors import VisavisError

    raise VisavisError("no chat is short enough", fix="raise max_length")


def broken(job: Any) -> Any:
    raise ValueError("shapes differ")
