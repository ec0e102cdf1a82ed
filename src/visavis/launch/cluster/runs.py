"""Runs on a cluster: begin one, find it, follow it, try it again, end it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from visavis.errors import VisavisError
from visavis.launch.cluster.arguments import arguments_for, check_clips, context_of
from visavis.launch.cluster.connection import Kubeflow, RefusedError, UnreachableError
from visavis.launch.cluster.packages import compiled_for, put, spec_of
from visavis.launch.cluster.tasks import OVER, TaskState, state_of, tasks_of
from visavis.launch.kfp_client import Compiled
from visavis.launch.local import git_sha
from visavis.launch.trainjob import delete_jobs
from visavis.recipes import Recipe
from visavis.steps.contracts import RunContext

log = logging.getLogger("visavis.cluster")

LATEST = "latest"
_SHORTEST_ID = 6
_POLL_S = 10.0
_PATIENCE_S = 300.0
"""How long a run is followed on while the server does not answer."""
_SERVER_ERROR = 500
_AGAIN = ("FAILED", "CANCELED")


@dataclass(frozen=True)
class Submitted:
    """A run that was begun.

    Attributes:
        run_id: Kubeflow's id.
        name: Name for people.
        link: Its page.
        tracking: Its page in MLflow; empty if MLflow did not answer.
        version: Version of the pipeline.
    """

    run_id: str
    name: str
    link: str
    tracking: str
    version: str


def submit(
    kubeflow: Kubeflow,
    recipe: Recipe,
    pipeline: str = "train",
    *,
    name: str = "",
    data: str = "",
    compiled: Compiled | None = None,
) -> Submitted:
    """Begins a run.

    Args:
        kubeflow: Where.
        recipe: What to run; its clips lie in a bucket.
        pipeline: Pipeline of the folder `pipelines/`.
        name: Name for people; by default the recipe's with the time.
        data: Hash of the clips, if somebody will ask for it.
        compiled: The pipeline, if it is compiled already.

    Raises:
        VisavisError: If something is missing or secret, or the server refuses; then no run was begun.
    """
    from kfp_server_api import V2beta1PipelineVersionReference, V2beta1Run, V2beta1RuntimeConfig

    target = kubeflow.target
    target.needed("store", "mlflow.uri")
    check_clips(recipe)
    name = name or f"{recipe.name}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    # Looked at before anything is made: a secret in the recipe must not reach MLflow's tags either.
    arguments_for(recipe, target, name, data=data)
    package = put(kubeflow, compiled or compiled_for(target, pipeline))
    experiment = kubeflow.experiment_id
    tracked = _Tracked(kubeflow, recipe, name)
    arguments = arguments_for(recipe, target, name, parent=tracked.run_id, data=data, git_sha=git_sha())
    wanted = V2beta1Run(
        display_name=name,
        description=f"visavis: pipeline {pipeline}, recipe {recipe.name} {recipe.digest()[:12]}",
        experiment_id=experiment,
        pipeline_version_reference=V2beta1PipelineVersionReference(
            pipeline_id=package.pipeline_id, pipeline_version_id=package.version_id
        ),
        runtime_config=V2beta1RuntimeConfig(parameters=arguments),
        service_account=target.kfp.service_account or None,
    )
    try:
        run = kubeflow.ask(f"begin run {name}", kubeflow.client.runs.run_service_create_run, run=wanted)
    except VisavisError:
        tracked.end("FAILED")
        raise
    tracked.tag(run.run_id, link := target.run_page(run.run_id))
    return Submitted(str(run.run_id), name, link, tracked.link, package.name)


def recent(kubeflow: Kubeflow) -> Iterator[Any]:
    """Yields our runs in the namespace, the newest first."""
    what = f"list the runs of namespace {kubeflow.namespace}"
    call = kubeflow.client.runs.run_service_list_runs
    yield from kubeflow.pages(
        what, call, "runs", experiment_id=kubeflow.experiment_id, sort_by="created_at desc"
    )


def find(kubeflow: Kubeflow, run: str) -> Any:
    """Returns a run of the namespace.

    Args:
        kubeflow: Where.
        run: Its id, the beginning of it, its name, or `latest`.

    Raises:
        VisavisError: If there is none, several begin so, or it lies in another namespace.
    """
    if run == LATEST:
        newest = next(recent(kubeflow), None)
        if newest is None:
            raise VisavisError(
                f"namespace {kubeflow.namespace} holds no run of ours",
                fix="begin one: visavis submit; or look at --namespace and kfp.experiment",
            )
        return _detailed(kubeflow, newest.run_id)
    full = len(run) == len("00000000-0000-0000-0000-000000000000") and run.count("-") == 4
    if full:
        found = _detailed(kubeflow, run)
        _check_namespace(kubeflow, found)
        return found
    named = [
        one.run_id
        for one in recent(kubeflow)
        if one.display_name == run or (len(run) >= _SHORTEST_ID and one.run_id.startswith(run))
    ]
    if len(named) != 1:
        count = "no run" if not named else f"{len(named)} runs"
        raise VisavisError(
            f"{count} of namespace {kubeflow.namespace} has the name {run!r}, or an id that begins so",
            fix="`visavis status` lists them; an id may be shortened to its first six letters or more",
        )
    return _detailed(kubeflow, named[0])


def tasks(kubeflow: Kubeflow, run: Any) -> list[TaskState]:
    """Returns the tasks of a run, in the order of its pipeline."""
    return tasks_of(run, spec_of(kubeflow, run))


def follow(
    kubeflow: Kubeflow,
    run_id: str,
    tell: Callable[[Any, list[TaskState]], None],
    *,
    poll_s: float = _POLL_S,
    patience_s: float = _PATIENCE_S,
) -> Any:
    """Waits for the end of a run and returns it; a server that is away for a while does not end the waiting.

    Args:
        kubeflow: Where.
        run_id: Its id.
        tell: Is given the run and its tasks at every look.
        poll_s: Time between two looks.
        patience_s: How long the server may be away.

    Raises:
        VisavisError: If the run is gone, or the server stays away; the run itself goes on.
    """
    spec: Any = None
    silent_since: float | None = None
    while True:
        try:
            run = _detailed(kubeflow, run_id)
            spec = spec or spec_of(kubeflow, run)
            silent_since = None
            tell(run, tasks_of(run, spec))
            if state_of(run) in OVER:
                return run
        except (UnreachableError, RefusedError) as error:
            if isinstance(error, RefusedError) and error.status < _SERVER_ERROR:
                raise
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > patience_s:
                raise VisavisError(
                    f"{error.message}; the run itself goes on", fix=f"visavis status {run_id}, when it does"
                ) from None
        time.sleep(poll_s)


def retry(kubeflow: Kubeflow, run: str) -> Any:
    """Goes on with a failed run from the task that failed, and returns it.

    Raises:
        VisavisError: If it did not fail, is gone, or the server refuses.
    """
    found = find(kubeflow, run)
    state = state_of(found)
    if state not in _AGAIN:
        fixes = {
            "SUCCEEDED": "there is nothing to do again; `visavis submit` begins a new run and reuses its results",
            "SKIPPED": "`visavis submit` begins a new run",
        }
        raise VisavisError(
            f"run {found.run_id} is {state}, and only one that failed can be tried again",
            fix=fixes.get(state, f"wait for its end, or end it: visavis cancel {found.run_id}"),
        )
    what = f"try run {found.run_id} again"
    kubeflow.ask(what, kubeflow.client.runs.run_service_retry_run, run_id=found.run_id)
    return found


def cancel(kubeflow: Kubeflow, run: str) -> Any:
    """Ends a run that is going on, and returns it.

    Raises:
        VisavisError: If it is over, is gone, or the server refuses.
    """
    found = find(kubeflow, run)
    state = state_of(found)
    if state in OVER:
        raise VisavisError(
            f"run {found.run_id} is {state} already",
            fix="nothing is left to end; `visavis status` lists the runs",
        )
    what = f"end run {found.run_id}"
    kubeflow.ask(what, kubeflow.client.runs.run_service_terminate_run, run_id=found.run_id)
    # A run that is ended from outside does not come to its exit task, which would have closed it.
    context = context_of(found)
    _delete_jobs(context, kubeflow.namespace)
    if context.get("parent_run_id"):
        _end_tracked(context["tracking_uri"], context["parent_run_id"], "KILLED")
    return found


def _delete_jobs(context: Mapping[str, Any], namespace: str) -> None:
    """Deletes the training jobs of a run, which would go on without it."""
    run = RunContext.model_validate(context) if context else None
    if run is None or run.cluster.training.run_as != "trainjob":
        return
    try:
        for name in delete_jobs(run, namespace):
            log.info("deleted TrainJob %s", name)
    except VisavisError as error:
        log.warning("the training jobs of the run could not be deleted: %s", error)


def _detailed(kubeflow: Kubeflow, run_id: str) -> Any:
    return kubeflow.ask(f"read run {run_id}", kubeflow.client.runs.run_service_get_run, run_id=run_id)


def _check_namespace(kubeflow: Kubeflow, run: Any) -> None:
    experiment = kubeflow.ask(
        f"read the experiment of run {run.run_id}",
        kubeflow.client.experiments.experiment_service_get_experiment,
        experiment_id=run.experiment_id,
    )
    # Where Kubeflow serves a single user, experiments have no namespace.
    if experiment.namespace and experiment.namespace != kubeflow.namespace:
        raise VisavisError(
            f"run {run.run_id} lies in namespace {experiment.namespace}, not in {kubeflow.namespace}",
            fix=f"--namespace {experiment.namespace}, if it is the run that you mean",
        )


class _Tracked:
    """MLflow's run of the whole pipeline; a server out of reach from here costs that run, not the pipeline's."""

    def __init__(self, kubeflow: Kubeflow, recipe: Recipe, name: str) -> None:
        self.run_id = self.link = ""
        self._uri = kubeflow.target.mlflow.uri
        tags = {"recipe.name": recipe.name, "recipe.hash": recipe.digest(), "git.sha": git_sha()}
        try:
            from visavis.tracking import client_for, run_page, start_parent

            self._client = client_for(self._uri)
            info = start_parent(self._client, kubeflow.target.mlflow.experiment, name, tags, None).info
        except Exception as error:  # whatever MLflow raises
            log.warning(
                "MLflow at %s is out of reach from here (%s): the steps' runs have no common parent",
                self._uri,
                type(error).__name__,
            )
            return
        self.run_id = str(info.run_id)
        self.link = run_page(self._uri, info.experiment_id, self.run_id)

    def tag(self, run_id: str, link: str) -> None:
        if self.run_id:
            try:
                self._client.set_tag(self.run_id, "kfp.run_id", run_id)
                self._client.set_tag(self.run_id, "kfp.run_url", link)
            except Exception as error:  # whatever MLflow raises
                log.warning("MLflow was not told of run %s (%s)", run_id, type(error).__name__)

    def end(self, status: str) -> None:
        if self.run_id:
            _end_tracked(self._uri, self.run_id, status)


def _end_tracked(uri: str, run_id: str, status: str) -> None:
    from visavis.tracking import client_for, end_running

    try:
        end_running(client_for(uri), run_id, status)
    except Exception as error:  # whatever MLflow raises
        log.warning("MLflow's run %s was not ended (%s)", run_id, type(error).__name__)
