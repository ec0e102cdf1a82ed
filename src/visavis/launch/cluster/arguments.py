"""What a run on a cluster is told: the recipe and the context, the only parameters of a pipeline, free of secrets."""

from __future__ import annotations

import json
from typing import Any

from visavis.cluster import Cluster, bundled_cluster
from visavis.errors import VisavisError
from visavis.launch.cluster.connection import secrets_of
from visavis.launch.cluster.target import Target, names_a_user
from visavis.launch.kfp_client import ROOT
from visavis.recipes import Recipe
from visavis.s3 import below, is_remote
from visavis.steps.contracts import RunContext
from visavis.steps.store import places_of

RUN_ID = "{{workflow.uid}}"
"""Stands for Kubeflow's id of the run, which is not known before there is one.

Kubeflow puts it in where it makes the workflow of a run, of a schedule too (2.17.0: `ReplaceUID` in
`apiserver/template/v2_template.go` and `crd/controller/scheduledworkflow/util/scheduled_workflow.go`).
"""


def check_clips(recipe: Recipe) -> None:
    """Makes sure that the pods of a cluster can read the clips.

    Raises:
        VisavisError: If they lie on this machine, or are to be rendered on it.
    """
    source = recipe.clips.source
    if is_remote(source):
        return
    found = f"clips.source is {source}, a place on this machine" if source else "clips.source is empty"
    raise VisavisError(
        f"{found}: a cluster cannot read it",
        fix="copy the clips into a bucket and give --source s3://bucket/prefix "
        "(`visavis storybook render clips` makes some to try)",
    )


def arguments_for(
    recipe: Recipe, target: Target, name: str, *, parent: str = "", data: str = "", git_sha: str = ""
) -> dict[str, str]:
    """Returns the parameters of a run.

    Args:
        recipe: What to run.
        target: Where.
        name: Name of the run for people.
        parent: MLflow run of the whole pipeline, if there is one.
        data: Hash of the clips that it is submitted for.
        git_sha: Commit of the code.

    Raises:
        VisavisError: If the store is not set, the clips are out of reach, or a parameter would hold a secret.
    """
    target.needed("store")
    check_clips(recipe)
    store, folders = places_of(target.store)
    context = RunContext(
        store=store,
        run_dir=below(folders, RUN_ID),
        run_name=name,
        tracking_uri=target.mlflow.uri,
        experiment=target.mlflow.experiment,
        parent_run_id=parent,
        git_sha=git_sha,
        image=target.images.train,
        recipe_hash=recipe.digest(),
        data_hash=data,
        cluster=_cluster(target),
    )
    arguments = {"recipe": recipe.model_dump_json(), "context": context.model_dump_json()}
    for parameter, text in arguments.items():
        _refuse_secrets(parameter, text)
    return arguments


def _cluster(target: Target) -> Cluster:
    """Returns the cluster file that the pipelines are compiled for, with what the target knows better."""
    cluster = bundled_cluster(ROOT / "pipelines")
    needs = cluster.needs.model_copy(update={"bucket": cluster.needs.bucket or target.store})
    return cluster.model_copy(
        update={"needs": needs, "run_link": cluster.run_link or target.run_page("{run}")}
    )


def context_of(run: Any) -> dict[str, Any]:
    """Returns the context that a run or schedule was given, its own id put in; empty if it is not one of ours."""
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    try:
        context = json.loads(parameters["context"].replace(RUN_ID, getattr(run, "run_id", RUN_ID)))
    except (KeyError, ValueError, AttributeError, TypeError):
        return {}
    return dict(context) if isinstance(context, dict) else {}


def _refuse_secrets(parameter: str, text: str) -> None:
    if names_a_user(text):
        raise VisavisError(
            f"parameter {parameter} of the run holds an address with a user or password in it",
            fix="take it out of the recipe; everybody who sees the run sees its parameters. Mount it as a Secret",
        )
    for name, value in secrets_of().items():
        if value in text or json.dumps(value)[1:-1] in text:
            raise VisavisError(
                f"parameter {parameter} of the run holds the value of {name}, which is a secret",
                fix="take it out of the recipe; everybody who sees the run sees its parameters. Mount it as a Secret",
            )
