"""One stage of training by itself, on one process or several: the same steps as the pipeline's, the same results."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from visavis.errors import VisavisError
from visavis.launch.local import RunResult, context_for, explained, run_local, watched
from visavis.recipes import Recipe
from visavis.steps.contracts import RunContext
from visavis.training.engine import RESUME_ME

_LOG = "stages.log"


@dataclass(frozen=True)
class Stage:
    """A step of training.

    Attributes:
        step: Name of its result.
        function: Function of `visavis.steps`, in the module of the same name.
        inputs: What it reads: name of the input -> step that makes it.
        options: Further arguments.
        trains: Whether several processes may share it.
    """

    step: str
    function: str
    inputs: dict[str, str]
    options: dict[str, str] = field(default_factory=dict)
    trains: bool = True


_DATA = {"conversations": "build_conversations", "tokens": "encode_images"}


def _mllm(name: str, before: str | None) -> Stage:
    inputs = {**_DATA, **({"mllm": before} if before else {})}
    return Stage(f"tune_mllm_{name}", "tune_mllm", inputs, {"stage": name})


STAGES = {
    "encode": Stage("encode_images", "encode_images", {"conversations": "build_conversations"}, trains=False),
    "detokenizer": Stage("tune_detokenizer", "tune_detokenizer", _DATA),
    "reconstruct": _mllm("reconstruct", None),
    "inpaint": _mllm("inpaint", "tune_mllm_reconstruct"),
    "pair": _mllm("pair", "tune_mllm_inpaint"),
    "rounds": Stage("tune_rounds", "tune_rounds", {**_DATA, "mllm": "tune_mllm_pair"}),
    "adapt": Stage(
        "adapt_detokenizer",
        "adapt_detokenizer",
        {**_DATA, "mllm": "tune_rounds", "detokenizer": "tune_detokenizer"},
    ),
}
"""Name for people to stage, in an order in which each follows what it reads."""


def needed_for(name: str) -> list[Stage]:
    """Returns the stages that must be there for one, itself last.

    Raises:
        VisavisError: If there is no such stage.
    """
    if name not in STAGES:
        raise VisavisError(f"stage {name!r} does not exist", fix=f"stages: {', '.join(STAGES)}")
    wanted = {STAGES[name].step}
    for stage in reversed(STAGES.values()):
        if stage.step in wanted:
            wanted |= set(stage.inputs.values())
    return [stage for stage in STAGES.values() if stage.step in wanted]


def train_stage(
    recipe: Recipe,
    name: str,
    *,
    processes: int = 1,
    runs: Path = Path("runs"),
    console: Console | None = None,
) -> RunResult:
    """Trains one stage here; what it starts from is reused from `runs/store`, or made first.

    Args:
        recipe: What to train.
        name: One of `STAGES`.
        processes: Processes that share the training; more than one are started by `torchrun`.
        runs: Folder of all runs.
        console: Where to show the progress.

    Raises:
        VisavisError: If a step failed; says which, why, and what to do.
    """
    console = Console(file=(console or Console()).file, highlight=False)
    todo = needed_for(name)
    run = run_local(recipe, runs=runs, console=console, pipeline="curate")
    context = context_for(recipe, runs.resolve(), run.run_dir, f"{run.run_dir.name} {name}")
    with watched(context, console, run.run_dir):
        failed = next((stage for stage in todo if not _done(stage, recipe, context, processes)), None)
    if failed is not None:
        raise explained(run.run_dir, RuntimeError(f"step {failed.step} failed"), run.run_dir / _LOG)
    return RunResult(run.run_dir, context.tracking_uri, context.parent_run_id)


def _done(stage: Stage, recipe: Recipe, context: RunContext, processes: int) -> bool:
    """Runs a stage in processes of its own; tells whether it succeeded."""
    folder = Path(context.run_dir) / "manifests"
    job = {
        "function": stage.function,
        "arguments": {
            "recipe": recipe.model_dump_json(),
            "context": context.model_dump_json(),
            "inputs": {name: str(folder / f"{step}.json") for name, step in stage.inputs.items()},
            "output": str(folder / f"{stage.step}.json"),
            **stage.options,
        },
    }
    file = folder.parent / f"{stage.step}.job.json"
    file.write_text(json.dumps(job))
    count = processes if stage.trains else 1
    shared = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    command = [sys.executable, *(shared if count > 1 else []), "-m", "visavis.launch.stages", str(file)]
    with (
        (folder.parent / _LOG).open("a") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        asked: list[int] = []

        def hand_on(number: int, _: object) -> None:
            asked.append(number)
            process.send_signal(number)

        before = signal.signal(signal.SIGTERM, hand_on)
        try:
            code = process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    # torchrun ends with 1 whatever its processes end with, and before the training began a process just dies.
    if code == RESUME_ME or (code and asked):
        raise SystemExit(RESUME_ME)
    return code == 0


def main(file: str) -> None:
    """Runs the job of a file in this process."""
    job = json.loads(Path(file).read_text())
    function = getattr(importlib.import_module(f"visavis.steps.{job['function']}"), job["function"])
    function(**job["arguments"])


if __name__ == "__main__":
    main(sys.argv[1])
