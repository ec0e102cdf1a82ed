"""The verbs of a cluster that begin and end runs: compile, submit, submit-if-changed, retry, cancel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from visavis.cli.cluster_options import (
    AllowTags,
    ClusterFile,
    Endpoint,
    Mlflow,
    Namespace,
    Pipeline,
    Poll,
    Run,
    Source,
    Store,
    Wait,
    target_of,
)
from visavis.cli.options import Overrides, RecipeName
from visavis.cli.watching import follow_run

if TYPE_CHECKING:
    from visavis.recipes import Recipe

console = Console(highlight=False)


def compile_(
    name: Annotated[str, typer.Argument(help="Pipeline of the folder `pipelines/`.")] = "train",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="YAML file to write; by default NAME.yaml.")
    ] = None,
    manifests: Annotated[
        bool,
        typer.Option("--manifests", help="Write the resources Pipeline and PipelineVersion, for GitOps."),
    ] = False,
    allow_tags: AllowTags = False,
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """Compile a pipeline into the YAML that Kubeflow Pipelines takes; equal code and images give equal YAML.

    Images must be named by digest: VISAVIS_TOOLS_IMAGE and VISAVIS_TRAIN_IMAGE, or `images` of visavis.yaml. With
    `--manifests`, Kubeflow's Kubernetes-native mode takes the file by `kubectl apply`.

    Examples: `visavis compile train -o train.yaml` · `visavis compile train --manifests -n team-a -o train.yaml`
    """
    from visavis.files import write_atomic
    from visavis.launch.cluster.packages import compiled_for
    from visavis.launch.kfp_client import pipeline_manifests

    target = target_of(cluster, "", namespace, allow_tags=allow_tags)
    images = target.images
    if manifests:
        text = pipeline_manifests(name, target.namespace, images.named(), allow_tags=images.allow_tags)
    else:
        text = compiled_for(target, name).text
    out = output or Path(f"{name}.yaml")
    write_atomic(out, text)
    console.print(f"wrote {out}", soft_wrap=True, markup=False)


def submit(
    overrides: Overrides = None,
    recipe: RecipeName = "storybook",
    source: Source = "",
    pipeline: Pipeline = "train",
    name: Annotated[str, typer.Option(help="Name of the run for people.")] = "",
    wait: Wait = False,
    poll: Poll = 10.0,
    store: Store = "",
    mlflow: Mlflow = "",
    allow_tags: AllowTags = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """Begin a run on a cluster; prints its id and pages.

    Steps that an earlier run has done with the same code, settings and inputs are reused from the store.

    Examples: `visavis submit --recipe seedx --source s3://bucket/clips --wait` ·
    `visavis submit --pipeline curate curate.min_face=0.1`
    """
    from visavis.launch.cluster import runs
    from visavis.launch.cluster.connection import connect

    target = target_of(cluster, endpoint, namespace, store, mlflow, allow_tags)
    resolved = _recipe(recipe, overrides, source)
    kubeflow = connect(target)
    submitted = runs.submit(kubeflow, resolved, pipeline, name=name)
    _announce(submitted)
    if wait:
        follow_run(kubeflow, submitted.run_id, poll)


def submit_if_changed(
    overrides: Overrides = None,
    recipe: RecipeName = "storybook",
    source: Source = "",
    pipeline: Pipeline = "train",
    name: Annotated[str, typer.Option(help="Name of the run for people.")] = "",
    wait: Wait = False,
    poll: Poll = 10.0,
    store: Store = "",
    mlflow: Mlflow = "",
    allow_tags: AllowTags = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """Begin a run only if the clips have changed: for a cron job, or for whatever tells of new data.

    The names of the clips and the tags of their bytes make a hash, which is kept with the run. A run of the same
    pipeline and recipe on the same hash that goes on or succeeded is enough; one that failed or was ended is not.

    Example: `visavis submit-if-changed --recipe seedx --source s3://bucket/clips`
    """
    from visavis.launch.cluster import changes, runs
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.packages import compiled_for
    from visavis.launch.cluster.tasks import state_of

    target = target_of(cluster, endpoint, namespace, store, mlflow, allow_tags)
    resolved = _recipe(recipe, overrides, source)
    kubeflow = connect(target)
    data = changes.data_hash(resolved)
    compiled = compiled_for(target, pipeline)
    found = changes.earlier(kubeflow, resolved, compiled.name, data)
    if found is not None:
        console.print(
            f"nothing has changed: run {found.run_id} ({state_of(found)}) is on the same clips, {data[:12]}",
            soft_wrap=True,
            markup=False,
        )
        return
    submitted = runs.submit(kubeflow, resolved, pipeline, name=name, data=data, compiled=compiled)
    _announce(submitted)
    console.print(f"  clips    {data[:12]}", markup=False)
    if wait:
        follow_run(kubeflow, submitted.run_id, poll)


def retry(
    run: Run,
    wait: Wait = False,
    poll: Poll = 10.0,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """Go on with a failed run from the task that failed.

    Example: `visavis retry latest --wait`
    """
    from visavis.launch.cluster import runs
    from visavis.launch.cluster.connection import connect

    kubeflow = connect(target_of(cluster, endpoint, namespace))
    found = runs.retry(kubeflow, run)
    console.print(f"run {found.run_id} goes on", markup=False)
    if wait:
        follow_run(kubeflow, found.run_id, poll)


def cancel(run: Run, endpoint: Endpoint = "", namespace: Namespace = "", cluster: ClusterFile = None) -> None:
    """End a run that is going on. What is finished stays in the store, and the next run reuses it.

    Example: `visavis cancel latest`
    """
    from visavis.launch.cluster import runs
    from visavis.launch.cluster.connection import connect

    found = runs.cancel(connect(target_of(cluster, endpoint, namespace)), run)
    console.print(f"run {found.run_id} is being ended", markup=False)


def _recipe(recipe: str, overrides: list[str] | None, source: str) -> Recipe:
    from visavis.recipes import apply_overrides, edit, recipe_named

    resolved = apply_overrides(recipe_named(recipe), overrides or [])
    return edit(resolved, {"clips.source": source}) if source else resolved


def _announce(submitted: Any) -> None:
    console.print(f"run {submitted.run_id}", markup=False, soft_wrap=True)
    rows = {"name": submitted.name, "version": submitted.version, "page": submitted.link}
    if submitted.tracking:
        rows["MLflow"] = submitted.tracking
    for row, value in rows.items():
        console.print(f"  {row:<8} {value}", markup=False, soft_wrap=True)
