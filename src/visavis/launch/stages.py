"""One stage of training by itself, on one process or several: the same steps as the pipeline's, the same results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from visavis.errors import VisavisError
from visavis.launch.jobs import Job, JobFailed, LocalLauncher
from visavis.launch.local import RunResult, context_for, explained, run_local, watched
from visavis.mirror import followed
from visavis.recipes import Recipe
from visavis.steps.close_run import close_run
from visavis.steps.contracts import RunContext
from visavis.tracking.tracker import FOLDER

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
    store: str = "",
) -> RunResult:
    """Trains one stage here; what it starts from is reused from `runs/store`, or made first.

    Args:
        recipe: What to train.
        name: One of `STAGES`.
        processes: Processes that share the training; more than one are started by `torchrun`.
        runs: Folder of all runs.
        console: Where to show the progress.
        store: `s3://bucket/prefix` for results and run, as for `run_local`.

    Raises:
        VisavisError: If a step failed; says which, why, and what to do.
    """
    console = Console(file=(console or Console()).file, highlight=False)
    todo = needed_for(name)
    run = run_local(recipe, runs=runs, console=console, pipeline="curate", store=store)
    context = context_for(recipe, runs.resolve(), run.run_dir, f"{run.run_dir.name} {name}", store=store)
    with _closed(recipe, context, run.run_dir), watched(context, console, run.run_dir):
        for stage in todo:
            try:
                with followed(context.run_dir, run.run_dir, f"{FOLDER}/*"):
                    _run(stage, recipe, context, run.run_dir, processes)
            except JobFailed as error:
                raise explained(run.run_dir, error, run.run_dir / _LOG) from error
    return RunResult(run.run_dir, context.tracking_uri, context.parent_run_id)


@contextmanager
def _closed(recipe: Recipe, context: RunContext, run_dir: Path) -> Iterator[None]:
    """Writes the run's summary and ends its MLflow run after the block, whatever became of it."""
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        with followed(context.run_dir, run_dir, f"{FOLDER}/*"):
            close_run(recipe.model_dump_json(), context.model_dump_json(), succeeded)


def _run(stage: Stage, recipe: Recipe, context: RunContext, run_dir: Path, processes: int) -> None:
    """Runs a stage in processes of its own."""
    inputs = {name: run_dir / "manifests" / f"{step}.json" for name, step in stage.inputs.items()}
    job = Job.of(stage.function, recipe.model_dump_json(), context, inputs, stage.options)
    LocalLauncher(processes if stage.trains else 1, run_dir / _LOG).run(job)
