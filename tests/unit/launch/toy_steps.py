"""Three small steps in place of the real ones: the launcher sees no difference."""

from __future__ import annotations

import errno
import os
import signal

from visavis.errors import VisavisError
from visavis.steps.framework import StepJob, StepResult, run_step


def one_step(name: str, recipe: str, context: str, inputs: dict[str, str], output: str) -> None:
    bodies = {"first": _first, "second": _second}
    run_step(name, bodies[name], recipe, context, inputs, output, ("seed",))


def _first(job: StepJob) -> StepResult:
    job.progress(1, 2, "items")
    job.tracker.log_metrics({"loss": 0.5}, step=1)
    (job.work / "items.txt").write_text(str(job.recipe.seed))
    return StepResult({"in": 3, "kept": 2, "dropped": {"blurred": 1}}, {"items": 2})


def _second(job: StepJob) -> StepResult:
    if os.environ.get("TOY") == "fail":
        raise VisavisError("no face was found", fix="give clips with faces")
    if os.environ.get("TOY") == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("TOY") == "full":
        raise OSError(errno.ENOSPC, "No space left on device", str(job.work / "items.txt"))
    (job.work / "scorecard.txt").write_bytes((job.folder("items") / "items.txt").read_bytes())
    return StepResult({"in": 2, "kept": 2, "dropped": {}})
