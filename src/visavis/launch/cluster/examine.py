"""`visavis doctor --cluster`: what a cluster offers, against what this release needs of it."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from visavis.errors import VisavisError
from visavis.kube import KubernetesRefusedError, ask, cluster_api
from visavis.launch.cluster.connection import connect
from visavis.launch.cluster.target import Target
from visavis.launch.finding import Finding, Verdict

SDK = {"kfp": (2, 17), "kfp-kubernetes": (2, 17), "kfp-server-api": (2, 17), "mlflow": (3, 10)}
"""Packages that a release is tested with, by the part of their version that must be the same or, of MLflow, newer."""
OLDEST_SERVER = (2, 15)
"""Oldest API server that reads what the SDK compiles (task configs, collected artifacts)."""
OLDEST_MLFLOW = (3, 10)
OLDEST_KUBERNETES = (1, 28)


@dataclass(frozen=True)
class _Kind:
    """A kind of resource that must be served.

    Attributes:
        title: Of the project.
        crd: Name of its definition.
        version: API version that we write.
        field: Field of `spec` that we write and older releases lack; empty if there is none.
        needed_for: What does not work without it.
        absent: Verdict if it is not there.
        fix: How to get it.
    """

    title: str
    crd: str
    version: str
    field: str
    needed_for: str
    absent: Verdict
    fix: str


KINDS = (
    _Kind(
        "Trainer",
        "trainjobs.trainer.kubeflow.org",
        "v1alpha1",
        "runtimePatches",
        "training on several nodes",
        "warning",
        "install Kubeflow Trainer 2.2 or newer (its chart kubeflow-trainer), or train in the step's own pod",
    ),
    _Kind(
        "KServe",
        "inferenceservices.serving.kserve.io",
        "v1beta1",
        "",
        "`visavis promote --apply`",
        "warning",
        "install KServe 0.20 or newer, or serve with the chart's own Deployment",
    ),
    _Kind(
        "KServe canary",
        "inferenceservices.serving.kserve.io",
        "v1beta1",
        "canary",
        "canaries in the mode Standard",
        "warning",
        "install KServe 0.20 or newer, or use the mode Knative",
    ),
    _Kind(
        "Kueue",
        "localqueues.kueue.x-k8s.io",
        "v1beta1",
        "",
        "queues and quotas",
        "warning",
        "install Kueue 0.10 or newer, or leave `queue` out of the profiles",
    ),
)


def examine_cluster(target: Target) -> Iterator[Finding]:
    """Looks at a cluster, one finding at a time; what cannot be looked at is a finding too.

    Args:
        target: Where runs go.
    """
    for name, version in SDK.items():
        yield _package(name, version)
    yield from _settings(target)
    yield from _guarded("Kubeflow Pipelines", lambda: _pipelines(target))
    yield from _guarded("MLflow", lambda: [_mlflow(target)])
    yield from _guarded("Kubernetes", lambda: _kubernetes(target))


def _guarded(subject: str, look: Callable[[], Any]) -> Iterator[Finding]:
    try:
        yield from look()
    except VisavisError as error:
        yield Finding(subject, "missing", error.message, error.fix)


def _package(name: str, wanted: tuple[int, ...]) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "missing", "not installed", "pip install 'visavis[pipeline]'")
    found, words = _numbers(version), ".".join(map(str, wanted))
    same = found >= wanted if name == "mlflow" else found[: len(wanted)] == wanted
    if same:
        return Finding(name, "ok", version)
    return Finding(name, "warning", f"{version}, this release is tested with {words}", "make setup")


def _settings(target: Target) -> Iterator[Finding]:
    from visavis.launch.kfp_client import has_digest

    for kind in ("tools", "train"):
        image = getattr(target.images, kind)
        subject = f"image {kind}"
        if has_digest(image):
            yield Finding(subject, "ok", image)
        elif target.images.allow_tags:
            yield Finding(
                subject, "warning", f"{image or 'the published tag'}", f"name images.{kind} by digest"
            )
        else:
            found = f"{image or 'not set'}: a digest is needed"
            yield Finding(subject, "missing", found, f"set images.{kind} to name@sha256:...")
    if target.store:
        yield Finding("store", "ok", target.store)
    else:
        yield Finding("store", "missing", "not set", "set store to s3://bucket/prefix, or VISAVIS_STORE")


def _pipelines(target: Target) -> Iterator[Finding]:
    kubeflow = connect(target)
    health = kubeflow.health()
    tag, found = str(health.get("tag_name", "unknown")), _numbers(str(health.get("tag_name", "")))
    sdk = _numbers(importlib.metadata.version("kfp"))[:2]
    subject = "KFP API server"
    if not found:
        fix = "make sure that it is 2.15 or newer; the image of deployment ml-pipeline says so"
        yield Finding(subject, "warning", f"answers, version {tag}", fix)
    elif found[:2] < OLDEST_SERVER:
        fix = "upgrade Kubeflow Pipelines to 2.17; 2.15 is the oldest that reads these pipelines"
        yield Finding(subject, "missing", f"{tag}, the SDK is {_words(sdk)}", fix)
    elif found[:2] < sdk:
        fix = f"upgrade Kubeflow Pipelines to {_words(sdk)}: an older server may not know a field of the pipeline"
        yield Finding(subject, "warning", f"{tag}, the SDK is {_words(sdk)}", fix)
    else:
        yield Finding(subject, "ok", f"{tag}, {'multi' if health['multi_user'] else 'single'}-user")
    experiment = kubeflow.experiment_id
    yield Finding(
        "KFP namespace", "ok", f"{target.namespace}: experiment {target.kfp.experiment} ({experiment})"
    )


def _mlflow(target: Target) -> Finding:
    target.needed("mlflow.uri")
    from visavis.tracking import client_for

    client_for(target.mlflow.uri)  # sets the limits of time
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(get_default_host_creds(target.mlflow.uri), "/version", "GET")
    except Exception as error:  # whatever MLflow raises
        return Finding(
            "MLflow",
            "warning",
            f"{target.mlflow.uri} does not answer from here ({type(error).__name__})",
            "look from inside the cluster: the steps need it there, and `submit` makes their common parent run here",
        )
    if answer.status_code in (401, 403):
        fix = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return Finding("MLflow", "missing", f"{target.mlflow.uri} answers {answer.status_code}", fix)
    version = answer.text.strip()
    if not _numbers(version):
        return Finding("MLflow", "missing", f"{target.mlflow.uri} is no MLflow server", "correct mlflow.uri")
    if _numbers(version) < OLDEST_MLFLOW:
        return Finding("MLflow", "missing", version, "upgrade MLflow to 3.10 or newer")
    return Finding("MLflow", "ok", version)


def _kubernetes(target: Target) -> Iterator[Finding]:
    from kubernetes import client

    api = cluster_api(otherwise="leave this part to somebody with access to the cluster's own API")
    version = ask("read its version", client.VersionApi(api).get_code).git_version
    if _numbers(version) < OLDEST_KUBERNETES:
        yield Finding("Kubernetes", "missing", version, "upgrade Kubernetes to 1.28 or newer")
    else:
        yield Finding("Kubernetes", "ok", version)
    for kind in KINDS:
        yield _kind(client.ApiextensionsV1Api(api), kind)
    yield _zone(client.CoreV1Api(api), target)
    yield _logs(client.AuthorizationV1Api(api), target.namespace)


def _kind(api: Any, kind: _Kind) -> Finding:
    try:
        definition = ask(f"read {kind.crd}", api.read_custom_resource_definition, name=kind.crd)
    except KubernetesRefusedError as refused:
        if refused.status == 404:
            return Finding(kind.title, kind.absent, f"no {kind.crd} (for: {kind.needed_for})", kind.fix)
        found = f"{kind.crd} is not readable for this account ({refused.status})"
        return Finding(
            kind.title, "warning", found, "let somebody look who may read CustomResourceDefinitions"
        )
    served = {version.name: version for version in definition.spec.versions if version.served}
    if kind.version not in served:
        found = f"serves {', '.join(served)}, not {kind.version} (for: {kind.needed_for})"
        return Finding(kind.title, "missing", found, kind.fix)
    if kind.field and kind.field not in _fields(served[kind.version]):
        return Finding(
            kind.title, "missing", f"its spec has no {kind.field} (for: {kind.needed_for})", kind.fix
        )
    return Finding(kind.title, "ok", f"{kind.crd} {kind.version}")


def _fields(version: Any) -> set[str]:
    root = version.schema.open_apiv3_schema if version.schema else None
    spec = (root.properties or {}).get("spec") if root else None
    return set((spec.properties if spec else None) or {})


def _zone(api: Any, target: Target) -> Finding:
    name, namespace = "pipeline-install-config", target.kfp.installed_in
    read = api.read_namespaced_config_map
    try:
        settings = ask("read its settings", read, name=name, namespace=namespace).data or {}
    except KubernetesRefusedError as refused:
        found = f"ConfigMap {namespace}/{name} is not readable ({refused.status})"
        fix = f"make sure that the cluster reads schedules in {target.kfp.time_zone} (kfp.time_zone)"
        return Finding("schedules' zone", "warning", found, fix)
    zone = str(settings.get("cronScheduleTimezone", "UTC"))
    if zone != target.kfp.time_zone:
        found = f"{zone}, but kfp.time_zone is {target.kfp.time_zone}"
        return Finding("schedules' zone", "missing", found, f"set kfp.time_zone to {zone}")
    return Finding("schedules' zone", "ok", zone)


def _logs(api: Any, namespace: str) -> Finding:
    from kubernetes import client

    wanted = client.V1ResourceAttributes(namespace=namespace, verb="get", resource="pods", subresource="log")
    review = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=wanted)
    )
    try:
        answer = ask("ask for rights", api.create_self_subject_access_review, body=review)
    except KubernetesRefusedError as refused:
        return Finding(
            "logs", "warning", f"rights cannot be asked for ({refused.status})", "try `visavis logs`"
        )
    if answer.status.allowed:
        return Finding("logs", "ok", f"pods/log of namespace {namespace} may be read")
    fix = f"ask for `get` and `list` on pods and pods/log in namespace {namespace}"
    return Finding("logs", "warning", f"pods/log of namespace {namespace} may not be read", fix)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version.strip())
    return tuple(int(part) for part in found.groups() if part) if found else ()


def _words(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
