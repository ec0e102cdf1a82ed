"""Pipelines on the cluster: one version for each compiled text, put there once and found again by its name."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis.launch.cluster.connection import Kubeflow, RefusedError
from visavis.launch.cluster.target import Target
from visavis.launch.kfp_client import Compiled, compile_pipeline

_TAKEN = 409


@dataclass(frozen=True)
class Package:
    """A version of a pipeline on the cluster.

    Attributes:
        pipeline_id: Kubeflow's id of the pipeline.
        version_id: Kubeflow's id of the version.
        name: Name of the version.
    """

    pipeline_id: str
    version_id: str
    name: str


def compiled_for(target: Target, pipeline: str) -> Compiled:
    """Compiles a pipeline with the images of a target; see `compile_pipeline`."""
    return compile_pipeline(pipeline, target.images.named(), allow_tags=target.images.allow_tags)


def put(kubeflow: Kubeflow, compiled: Compiled) -> Package:
    """Makes sure that a compiled pipeline is on the cluster, and returns where.

    Two who do it at once end up with the same version: the names are made of the text.

    Args:
        kubeflow: Where.
        compiled: The pipeline.

    Raises:
        VisavisError: If the server does not answer or refuses.
    """
    pipeline = _pipeline(kubeflow, compiled.name)
    version = _version(kubeflow, pipeline, compiled.version) or _uploaded(kubeflow, pipeline, compiled)
    return Package(pipeline, version, compiled.version)


def look(kubeflow: Kubeflow, compiled: Compiled) -> Package | None:
    """Returns where a compiled pipeline is on the cluster, or None if it is not there."""
    pipeline = _found(kubeflow, compiled.name)
    version = _version(kubeflow, pipeline, compiled.version) if pipeline else None
    return Package(pipeline, version, compiled.version) if pipeline and version else None


def spec_of(kubeflow: Kubeflow, run: Any) -> Mapping[str, Any]:
    """Returns what a run's pipeline is made of, without what belongs to the platform."""
    spec = run.pipeline_spec
    reference = run.pipeline_version_reference
    if not spec and reference and reference.pipeline_version_id:
        found = kubeflow.ask(
            f"read the pipeline of run {run.run_id}",
            kubeflow.client.pipelines.pipeline_service_get_pipeline_version,
            pipeline_id=reference.pipeline_id,
            pipeline_version_id=reference.pipeline_version_id,
        )
        spec = found.pipeline_spec
    inner = (spec or {}).get("pipeline_spec", spec or {})
    return dict(inner)


def _pipeline(kubeflow: Kubeflow, name: str) -> str:
    from kfp_server_api import V2beta1Pipeline

    if (found := _found(kubeflow, name)) is not None:
        return found
    pipelines = kubeflow.client.pipelines
    wanted = V2beta1Pipeline(name=name, display_name=name, namespace=kubeflow.namespace)
    try:
        what = f"create pipeline {name} in namespace {kubeflow.namespace}"
        made = kubeflow.ask(what, pipelines.pipeline_service_create_pipeline, pipeline=wanted)
        return str(made.pipeline_id)
    except RefusedError as error:
        # Somebody else was quicker.
        if error.status == _TAKEN and (found := _found(kubeflow, name)) is not None:
            return found
        raise


def _found(kubeflow: Kubeflow, name: str) -> str | None:
    what = f"list the pipelines of namespace {kubeflow.namespace}"
    listing = kubeflow.client.pipelines.pipeline_service_list_pipelines
    for pipeline in kubeflow.pages(what, listing, "pipelines", namespace=kubeflow.namespace):
        if name in (pipeline.name, pipeline.display_name):
            return str(pipeline.pipeline_id)
    return None


def _version(kubeflow: Kubeflow, pipeline: str, name: str) -> str | None:
    what, listing = f"list the versions of pipeline {pipeline}", "pipeline_service_list_pipeline_versions"
    call = getattr(kubeflow.client.pipelines, listing)
    newest = {"pipeline_id": pipeline, "sort_by": "created_at desc"}
    for version in kubeflow.pages(what, call, "pipeline_versions", **newest):
        if name in (version.name, version.display_name):
            return str(version.pipeline_version_id)
    return None


def _uploaded(kubeflow: Kubeflow, pipeline: str, compiled: Compiled) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{compiled.version}.yaml"
        file.write_text(compiled.text)
        try:
            made = kubeflow.ask(
                f"upload version {compiled.version}",
                kubeflow.client.pipeline_uploads.upload_pipeline_version,
                uploadfile=str(file),
                name=compiled.version,
                pipelineid=pipeline,
            )
            return str(made.pipeline_version_id)
        except RefusedError as error:
            if error.status == _TAKEN and (found := _version(kubeflow, pipeline, compiled.version)):
                return found
            raise
