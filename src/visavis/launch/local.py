"""A run on this machine: the same pipeline as on a cluster, each step in a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from visavis import s3
from visavis.errors import VisavisError
from visavis.files import read_json, write_json
from visavis.launch.clips import with_clips
from visavis.launch.graph import skipped_by
from visavis.launch.kfp_client import ROOT, pipeline_named
from visavis.launch.progress import Watch
from visavis.loading import local_tracking_uri
from visavis.mirror import followed
from visavis.recipes import Recipe
from visavis.steps.contracts import RunContext
from visavis.steps.framework import log
from visavis.steps.run_files import LATEST
from visavis.steps.store import places_of
from visavis.steps.timings import read_timings
from visavis.tracking import EXPERIMENT, Post
from visavis.tracking.tracker import FOLDER

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = "pipeline.log"
_NEEDED_BYTES = 2 << 30


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        run_dir: Its folder.
        tracking_uri: MLflow's address.
        parent_run_id: Its MLflow run; empty if the tracker was out of reach.
    """

    run_dir: Path
    tracking_uri: str
    parent_run_id: str


def run_local(
    recipe: Recipe,
    *,
    runs: Path = Path("runs"),
    console: Console | None = None,
    pipeline: str = "train",
    given: Mapping[str, Path] | None = None,
    anew: Iterable[str] = (),
    store: str = "",
) -> RunResult:
    """Runs a pipeline here and returns when it is done.

    Steps that were run before with the same code, settings and inputs are reused from `runs/store`; a step
    that was killed goes on from its last checkpoint. The folder of the run is `runs/<time>-<recipe>`, and
    `runs/latest` points to it.

    Args:
        recipe: What to run.
        runs: Folder of all runs.
        console: Where to show the progress.
        pipeline: Name of the pipeline: `train`, or `curate` for its first half.
        given: Step to the manifest file of a result that is taken for it; what only that needs is not done.
        anew: Steps whose results are made anew although they are there.
        store: `s3://bucket/prefix` in which results (`store/`) and the folder of the run (`runs/NAME/`) are to
            lie; the folder of the run here then is a copy that follows.

    Raises:
        VisavisError: If `store` is no such address, or a step failed; says which, why, and what to do.
    """
    if store:
        s3.split_uri(store)
    console = Console(file=(console or Console()).file, highlight=False)
    runs = runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    _check_disk(runs)
    found = pipeline_named(pipeline)
    skipped = skipped_by(found, given or {}, anew)
    placed = recipe if "list_clips" in skipped else with_clips(recipe, runs / "clips", console)
    run_dir = _new_folder(runs, recipe.name)
    recipe.save(run_dir / "recipe.yaml")
    taken = {step: str(path.resolve()) for step, path in (given or {}).items()}
    changes = {"given": taken, "skipped": skipped, "anew": tuple(anew)}
    context = context_for(recipe, runs, run_dir, run_dir.name, store=store).model_copy(update=changes)
    console.print(f"run {run_dir.name} in {run_dir}", markup=False, soft_wrap=True)
    with followed(context.run_dir, run_dir, f"{FOLDER}/*"):
        carry_out(found, {"recipe": placed.model_dump_json()}, context, console, run_dir)
    return RunResult(run_dir, context.tracking_uri, context.parent_run_id)


def context_for(
    recipe: Recipe,
    runs: Path,
    run_dir: Path,
    name: str,
    tags: Mapping[str, str] | None = None,
    *,
    store: str = "",
) -> RunContext:
    """Returns the context of a pipeline that is to run here, with a new MLflow run.

    Args:
        recipe: What is run.
        runs: Folder of all runs, absolute.
        run_dir: Folder of this one, absolute.
        name: Its name for people.
        tags: More tags of the MLflow run.
        store: `s3://bucket/prefix` of results and run; empty: they lie here.
    """
    uri = local_tracking_uri(runs)
    context = RunContext(
        store=str(runs / "store"),
        run_dir=str(run_dir),
        run_name=name,
        tracking_uri=uri,
        parent_run_id=_parent_run(uri, runs, name, recipe, tags or {}),
        git_sha=git_sha(),
        image=os.environ.get("VISAVIS_IMAGE", ""),
        recipe_hash=recipe.digest(),
        relayed=True,
    )
    if not store:
        return context
    results, folders = places_of(store)
    places = {"store": results, "run_dir": s3.below(folders, run_dir.name), "relayed": False}
    return context.model_copy(update=places)


def carry_out(
    pipeline: Any,
    arguments: Mapping[str, str],
    context: RunContext,
    console: Console,
    folder: Path | None = None,
) -> None:
    """Runs a pipeline here, shows its progress and sends what its steps tell MLflow.

    Args:
        pipeline: From `pipeline_named`.
        arguments: Its arguments but for the context.
        context: Where it runs.
        console: Where to show the progress.
        folder: Folder of the run on this machine, if that of the context is in a bucket.

    Raises:
        VisavisError: If a step failed; says which, why, and what to do.
    """
    run_dir = folder or Path(context.run_dir)
    with watched(context, console, run_dir):
        error = _run(pipeline, {**arguments, "context": context.model_dump_json()}, run_dir)
    if error is not None:
        raise explained(run_dir, error)


@contextlib.contextmanager
def watched(context: RunContext, console: Console, folder: Path) -> Iterator[None]:
    """Shows what the steps of a block do, sends what they tell MLflow, and gives them this package."""
    with contextlib.ExitStack() as stack:
        if context.relayed:
            stack.callback(Post(context, folder / FOLDER).start().close)
        stack.enter_context(Watch(folder, console))
        stack.enter_context(_environment(folder))
        yield


def _check_disk(runs: Path) -> None:
    free = shutil.disk_usage(runs).free
    if free < _NEEDED_BYTES:
        raise VisavisError(
            f"only {free / 2**30:.1f} GiB are free for {runs}, a run needs {_NEEDED_BYTES / 2**30:.0f}",
            fix="make room, for example by removing old results in runs/store, or run on another disk",
        )


def _new_folder(runs: Path, name: str) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    run_dir = runs / f"{stamp}-{name}"
    number = 2
    while run_dir.exists():
        run_dir = runs / f"{stamp}-{name}-{number}"
        number += 1
    (run_dir / "timings").mkdir(parents=True)
    latest, temporary = runs / LATEST, runs / f".latest.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run_dir.name)
    temporary.replace(latest)
    return run_dir


def git_sha() -> str:
    """Returns the commit of the checkout, `-dirty` if files were changed since; empty outside of git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _parent_run(uri: str, runs: Path, name: str, recipe: Recipe, more: Mapping[str, str]) -> str:
    """Makes the MLflow run of the pipeline; a tracker that is out of reach costs the curves, not the run."""
    from visavis.tracking import client_for, start_parent

    # A remote server chooses the place of artifacts itself; beside a local database, we do.
    artifacts = (runs / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
    tags = {"recipe.name": recipe.name, "recipe.hash": recipe.digest(), "git.sha": git_sha(), **more}
    try:
        client = client_for(uri)
        run = start_parent(client, EXPERIMENT, name, tags, artifacts)
        _mark_killed(client, runs, str(run.info.run_id))
    except Exception as error:  # whatever MLflow raises
        log.warning("MLflow at %s is out of reach (%s): the run goes on without it", uri, error)
        return ""
    return str(run.info.run_id)


def _mark_killed(client: MlflowClient, runs: Path, own: str) -> None:
    """Ends the MLflow runs of an earlier local run that was killed, and notes our own for the next one."""
    from visavis.tracking import end_running

    note = runs / "running.json"
    if note.is_file():
        earlier = read_json(note)
        if not _alive(earlier["pid"]):
            with contextlib.suppress(Exception):  # it may lie in another tracker
                end_running(client, earlier["run_id"], "KILLED")
    write_json(note, {"run_id": own, "pid": os.getpid()})


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


@contextlib.contextmanager
def _environment(run_dir: Path) -> Iterator[None]:
    """Gives the steps this package, this interpreter and a temporary folder that is removed afterwards."""
    temporary = run_dir / "tmp"
    temporary.mkdir()
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    changes = {"PYTHONPATH": path, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    # Beside other busy programs, threads that wait by spinning make a step many times slower.
    changes["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    # A run id in the environment would make every step write into that one run.
    before = {name: os.environ.get(name) for name in (*changes, "MLFLOW_RUN_ID")}
    os.environ.update(changes)
    os.environ.pop("MLFLOW_RUN_ID", None)
    tempfile.tempdir = None  # read TMPDIR again
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None
        shutil.rmtree(temporary, ignore_errors=True)


def _run(pipeline: Any, arguments: Mapping[str, str], run_dir: Path) -> Exception | None:
    """Runs the pipeline with Kubeflow's local runner; what that and the steps print goes into a file."""
    from kfp import local

    with (run_dir / LOG).open("w") as stream, contextlib.redirect_stdout(stream), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # images, resources and display names mean nothing here
        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=str(run_dir / "pipeline"),
            raise_on_error=True,
        )
        try:
            with _without_retries(pipeline):
                pipeline(**arguments)
        except (
            Exception
        ) as error:  # the runner raises RuntimeError; its text says less than the step's own notes
            return error
    return None


@contextlib.contextmanager
def _without_retries(pipeline: Any) -> Iterator[None]:
    """Takes the retries out of a pipeline for a while: they are for machines that are taken away, and cost minutes."""
    spec = pipeline.component_spec.implementation.graph
    before = type(spec)()
    before.CopyFrom(spec)
    dags = [spec.root.dag, *(part.dag for part in spec.components.values() if part.HasField("dag"))]
    for task in (task for dag in dags for task in dag.tasks.values()):
        task.ClearField("retry_policy")
    try:
        yield
    finally:
        spec.CopyFrom(before)


def explained(run_dir: Path, error: Exception, logs: Path | None = None) -> VisavisError:
    """Returns the reason of a failed run as its user should read it; `logs` is where its steps wrote."""
    logs = logs or run_dir / LOG
    again = "run the same command again: finished steps are reused"
    for path in sorted((run_dir / "failures").glob("*.json")):
        failure = read_json(path)
        fix = failure["fix"] or f"read the traceback in {logs}; then {again}"
        return VisavisError(f"step {failure['step']}: {failure['message']}", fix=fix)
    for timing in read_timings(run_dir):
        if timing["status"] == "running":
            return VisavisError(
                f"step {timing['step']} was killed after it had started (out of memory?)",
                fix=f"free memory, then {again}, and this one goes on where it was; its output is in {logs}",
            )
    return VisavisError(
        f"the pipeline failed outside of its steps: {error}", fix=f"read {logs}; then {again}"
    )
