"""The options that the verbs of a cluster share, and where they lead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from visavis.launch.cluster.target import Target

ClusterFile = Annotated[
    Path | None, typer.Option("--cluster", help="Where runs go; by default `visavis.yaml`, if it is here.")
]
Endpoint = Annotated[str, typer.Option(help="Address of Kubeflow Pipelines, or KF_PIPELINES_ENDPOINT.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace, or KUBEFLOW_NAMESPACE.")]
Run = Annotated[str, typer.Argument(help="Id of the run or its beginning, its name, or `latest`.")]
Pipeline = Annotated[str, typer.Option(help="Pipeline of the folder `pipelines/`.")]
Source = Annotated[
    str, typer.Option(help="Clips: s3://bucket/prefix or a manifest there; else the recipe's.")
]
Store = Annotated[str, typer.Option(help="Where results go, s3://bucket/prefix, or VISAVIS_STORE.")]
Mlflow = Annotated[str, typer.Option(help="Address of MLflow, or MLFLOW_TRACKING_URI.")]
AllowTags = Annotated[bool, typer.Option("--allow-tags", help="Take images that are named by a tag.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the run to its end; exits with 1 if it fails.")]
Poll = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at a run.")]


def target_of(
    cluster: Path | None,
    endpoint: str,
    namespace: str,
    store: str = "",
    mlflow: str = "",
    allow_tags: bool = False,
) -> Target:
    """Returns where a command's runs go: its options first, then the environment, then the file."""
    from visavis.launch.cluster.target import read_target

    options = {"kfp.endpoint": endpoint, "namespace": namespace, "store": store, "mlflow.uri": mlflow}
    return read_target(cluster, {**options, "images.allow_tags": "true" if allow_tags else ""})
