"""KServe's InferenceService for the champion and its canary: rendered from the registry, then applied or written.

KServe reads neither `mlflow:` nor `models:` addresses, so the aliases are resolved to where the weights lie. In the
mode Knative, KServe splits requests between the new revision and the one before it (`canaryTrafficPercent`); in the
mode Standard, from KServe 0.20 on, the canary is a predictor of its own (`spec.canary`).

Sources: KServe 0.21 `docs/samples/v1beta1/rollout/canary.yaml`, `pkg/apis/serving/v1beta1`
(`inference_service_validation.go`, `predictor_custom.go`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from visavis.errors import VisavisError
from visavis.files import write_atomic
from visavis.kube import cluster_api
from visavis.registry.change import State
from visavis.registry.promotion import canary_share
from visavis.registry.versions import CANARY, CHAMPION, Version, find, location
from visavis.settings import read_yaml, validated

API, KIND = "serving.kserve.io/v1beta1", "InferenceService"
CONTAINER = "kserve-container"
FIELD_MANAGER = "visavis"
_READABLE = ("s3://", "gs://", "https://", "pvc://", "oci://", "hf://")
_DNS = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
# What Kubernetes' restricted Pod Security asks for, in the fields of a container: Knative takes no others.
_LOCKED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _image() -> str:
    return os.environ.get("VISAVIS_SERVE_IMAGE", "ghcr.io/visavis/visavis-serve:0.1.0")


class ServingConfig(BaseModel):
    """How the model is served on a cluster.

    Attributes:
        name: Of the InferenceService; part of its address.
        namespace: Where it runs.
        mode: How KServe runs it: `Knative` scales to zero, `Standard` is a plain Deployment.
        image: Container with `visavis[kserve]`; by default that of the variable `VISAVIS_SERVE_IMAGE`.
        service_account: Has the right to read the weights; the namespace's default one if empty.
        min_replicas: Least number of pods; also that of a canary.
        resources: Requests and limits of the container, as Kubernetes takes them.
        env: Further environment variables of the container.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("visavis", pattern=_DNS, max_length=40)
    namespace: str = Field("visavis", pattern=_DNS, max_length=63)
    mode: Literal["Knative", "Standard"] = "Knative"
    image: str = Field(default_factory=_image, min_length=1)
    service_account: str = ""
    min_replicas: int = Field(1, ge=0)
    resources: Mapping[str, Mapping[str, str]] = {
        "requests": {"cpu": "2", "memory": "8Gi"},
        "limits": {"memory": "16Gi"},
    }
    env: Mapping[str, str] = {}


def read_serving(path: Path) -> ServingConfig:
    """Returns the settings of a YAML file.

    Raises:
        VisavisError: If there is no such file, or a field is wrong.
    """
    absent, broken = "give a YAML file, or leave the option out", "write it as `mode: Standard`"
    values = read_yaml(path, title=str(path), absent=absent, broken=broken) or {}
    fix = f"fields: {', '.join(ServingConfig.model_fields)}"
    return validated(ServingConfig, values, title=str(path), fix=fix)


def inference_service(
    champion: Version,
    place: str,
    config: ServingConfig,
    *,
    canary: Version | None = None,
    canary_place: str = "",
) -> dict[str, Any]:
    """Returns the manifest.

    Args:
        champion: Version that serves.
        place: Where its files are.
        config: How it is served.
        canary: Version that serves a share of the requests (its tag `canary.percent`).
        canary_place: Where its files are.
    """
    facts = {
        "serving.kserve.io/deploymentMode": config.mode,
        "visavis/model": champion.name,
        "visavis/champion": champion.version,
        "visavis/champion-weights": champion.tags.get("weights.sha256", ""),
    }
    spec: dict[str, Any] = {"predictor": _predictor(champion, place, config)}
    if canary is not None:
        facts["visavis/canary"] = canary.version
        percent, newer = canary_share(canary.tags), _predictor(canary, canary_place, config)
        if config.mode == "Knative":
            spec["predictor"] = {"canaryTrafficPercent": percent, **newer}
        else:
            name = f"canary-{canary.version}"
            spec["canary"] = [{"predictor": {"name": name, **newer}, "trafficPercent": percent}]
    return {
        "apiVersion": API,
        "kind": KIND,
        "metadata": {
            "name": config.name,
            "namespace": config.namespace,
            "labels": {"app.kubernetes.io/name": config.name, "app.kubernetes.io/managed-by": FIELD_MANAGER},
            "annotations": {key: value for key, value in facts.items() if value},
        },
        "spec": spec,
    }


def _predictor(version: Version, place: str, config: ServingConfig) -> dict[str, Any]:
    environment = {
        "STORAGE_URI": place,
        "VISAVIS_WEIGHTS_SHA256": version.tags.get("weights.sha256", ""),
        **config.env,
    }
    container = {
        "name": CONTAINER,
        "image": config.image,
        "command": ["python", "-m", "visavis.serving.kserve_predictor"],
        "args": [f"--model_name={config.name}", f"--model_version={version.version}"],
        "env": [{"name": name, "value": value} for name, value in environment.items() if value],
        "resources": {kind: dict(amounts) for kind, amounts in config.resources.items()},
        "securityContext": _LOCKED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    account = {"serviceAccountName": config.service_account} if config.service_account else {}
    return {
        "minReplicas": config.min_replicas,
        **account,
        "automountServiceAccountToken": False,  # the predictor never asks the API server
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }


def manifest_of(state: State, config: ServingConfig, *, tracking_uri: str) -> dict[str, Any]:
    """Returns the manifest of what the registry's aliases say now.

    Raises:
        VisavisError: If there is no champion, or its files are where no cluster can read them.
    """
    champion = find(f"models:/{state.name}@{CHAMPION}", tracking_uri=tracking_uri)
    place = readable_place(champion, tracking_uri)
    if CANARY not in state.aliases:
        return inference_service(champion, place, config)
    canary = find(f"models:/{state.name}@{CANARY}", tracking_uri=tracking_uri)
    there = readable_place(canary, tracking_uri)
    return inference_service(champion, place, config, canary=canary, canary_place=there)


def readable_place(version: Version, tracking_uri: str) -> str:
    """Returns where the files of a version are.

    Raises:
        VisavisError: If no cluster can read them there.
    """
    place = location(version, tracking_uri=tracking_uri)
    if place.startswith(_READABLE):
        return place
    proxied = place.startswith("mlflow-artifacts:")
    where = "behind MLflow's proxy" if proxied else "on this machine"
    raise VisavisError(
        f"the files of {version.uri} are {where} ({place}), where KServe cannot read them",
        fix="let MLflow store artifacts in S3 directly (`mlflow server --no-serve-artifacts "
        "--default-artifact-root s3://...`), and register the model there",
    )


def write_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Writes a manifest as YAML, atomically: for GitOps, or `kubectl apply -f`."""
    write_atomic(path, yaml.safe_dump(dict(manifest), sort_keys=False))


def apply_manifest(manifest: Mapping[str, Any], context: str | None = None) -> None:
    """Applies a manifest to a cluster by server-side apply; fields that others set stay theirs.

    Args:
        manifest: From `manifest_of`.
        context: Context of the kubeconfig; the current one by default, and inside a pod the pod's own account.

    Raises:
        VisavisError: If there is no cluster to talk to, no KServe on it, or it refuses.
    """
    import urllib3
    from kubernetes import client
    from kubernetes.dynamic import DynamicClient
    from kubernetes.dynamic.exceptions import ResourceNotFoundError

    api = cluster_api(context, otherwise="write the manifest: --manifest FILE")
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    try:
        resource = DynamicClient(api).resources.get(api_version=API, kind=KIND)
        resource.server_side_apply(
            body=dict(manifest),
            name=name,
            namespace=namespace,
            field_manager=FIELD_MANAGER,
            force_conflicts=True,
        )
    except ResourceNotFoundError as error:
        raise VisavisError(f"the cluster has no {API} {KIND}", fix="install KServe 0.20 or newer") from error
    except client.ApiException as error:
        raise VisavisError(
            f"the cluster refused InferenceService {namespace}/{name}: {error.status} {error.reason}: {error.body}",
            fix="look at the rights of your account and at the message above; then repeat the command",
        ) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise VisavisError(
            f"the cluster at {api.configuration.host} does not answer: {error}",
            fix="repeat the command when it does: the aliases have moved already, and only this is missing",
        ) from error
