"""A step that trains, as a component runs it: in its own process, in several, or as a TrainJob; the cluster file says.

Whoever does the work, what comes of it is a result in the store, under the same key.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visavis.cluster import Placement
from visavis.errors import TransientError, VisavisError
from visavis.files import read_json, write_atomic
from visavis.launch.job_page import write_page
from visavis.launch.jobs import Job, JobFailed, Launcher, LocalLauncher
from visavis.launch.run_folder import step_folder
from visavis.launch.trainjob import TrainJobLauncher
from visavis.steps.contracts import Manifest, RunContext, Unmade
from visavis.steps.timings import note_failure, refuse_again


def train_step(
    function: str,
    recipe: str,
    context: str,
    inputs: Mapping[str, str | Path],
    output: str | Path,
    page: str | Path,
    task: Mapping[str, Any] | None = None,
    **options: str,
) -> Manifest:
    """Runs a step that trains.

    Args:
        function: Function of `visavis.steps`, in the module of the same name.
        recipe: Resolved recipe as JSON.
        context: `RunContext` as JSON.
        inputs: Manifest file of each input.
        output: Manifest file to write.
        page: HTML file to write: how the job went.
        task: `dsl.TaskConfig` of the component as a mapping; empty outside of a cluster.
        **options: Further arguments of the step.

    Returns:
        The manifest of the result.

    Raises:
        VisavisError: If the step failed; says why and what to do.
    """
    run = RunContext.model_validate_json(context)
    step = getattr(importlib.import_module(f"visavis.steps.{function}"), function)
    job = Job.of(function, recipe, run, inputs, options)

    def made(anew: tuple[str, ...] = ()) -> Manifest:
        looking = run.model_copy(update={"looks": True, "anew": anew}).model_dump_json()
        found: Manifest = step(recipe, looking, inputs, output, **options)
        return found

    with step_folder(run, job.step) as folder:
        refuse_again(folder, job.step, run.cluster.retries.not_again_seconds)
    write_page(Path(page), run, job.step)
    launcher = None
    if not _works_here(run, job.step):
        try:
            made(run.anew)
        except Unmade as unmade:
            launcher = launcher_for(run, job.step, unmade.key, Path(page), task)
    if launcher is None:
        done: Manifest = step(recipe, context, inputs, output, **options)
        return done
    try:
        _launch(launcher, job, run)
        manifest = made()
    except Unmade as unmade:
        raise TransientError(
            f"the job of {job.step} is complete, but its result {unmade.key} is not in the store",
            fix=f"run this again; is {run.store} the same place for the step and its job?",
        ) from None
    with step_folder(run, job.step) as folder:
        for path in (Path(output), folder / "manifests" / f"{job.step}.json"):
            write_atomic(path, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _works_here(run: RunContext, step: str) -> bool:
    """Whether a step trains in this process itself, so that nobody needs to look first whether it has to."""
    training = run.cluster.training
    return training.run_as == "process" and training.processes_on(run.cluster.profile_of(step)) == 1


def launcher_for(
    run: RunContext, step: str, key: str, page: Path, task: Mapping[str, Any] | None = None
) -> Launcher:
    """Returns who is to run a step that does not train in this process, as the cluster file says.

    Args:
        run: The run.
        step: Name of the step.
        key: Key of its result.
        page: HTML file to write.
        task: `dsl.TaskConfig` of the component as a mapping.

    Raises:
        VisavisError: If a TrainJob is wanted for a step without a profile.
    """
    settings, profile = run.cluster.training, run.cluster.profile_of(step)
    if settings.run_as == "process":
        return LocalLauncher(settings.processes_on(profile))
    if profile is None:
        raise VisavisError(
            f"cluster file: training.run_as is `trainjob`, and step {step} has no profile",
            fix="name its profile under `steps`, or one for all under `default`",
        )
    return TrainJobLauncher(run, profile, Placement.of(profile, task), key, page)


def _launch(launcher: Launcher, job: Job, run: RunContext) -> None:
    """Runs a job; its failure is told as that of the step, and noted in the run's folder."""
    try:
        launcher.run(job)
    except JobFailed as error:
        with step_folder(run, job.step) as folder:
            note = folder / "failures" / f"{job.step}.json"
            told: dict[str, Any] = {"message": str(error), "fix": "", "lasting": False}
            failure = read_json(note) if note.is_file() else told
        fix = failure["fix"] or "read the job's last lines: they are in the log of the step and on its page"
        kind = VisavisError if failure["lasting"] else TransientError
        raise kind(f"step {job.step}: {failure['message']}", fix=fix) from error
    except VisavisError as error:
        with step_folder(run, job.step) as folder:
            note_failure(folder, job.step, error)
        raise
