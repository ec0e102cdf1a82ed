"""What the chart renders, over a matrix of values: valid for every Kubernetes, and fit for a strict namespace."""

from __future__ import annotations

import functools
from typing import Any

import helm_python
import kubernetes_validate
import kubernetes_validate.utils
import pytest
from chart_rendering import (
    CHART,
    DIGESTS,
    KEYS,
    MLFLOW,
    SITE,
    chart,
    environment,
    job_template,
    merged,
    one,
    pods,
    render,
    texts,
)
from custom_resources import validate
from pod_security import house_rules, violations

from visavis import __version__

OLDEST = 28
VERSIONS = sorted(
    {text.rpartition(".")[0] for text in kubernetes_validate.utils.all_versions()},
    key=lambda text: int(text.split(".")[1]),
)
STORE = {"endpointUrl": "https://s3.store.svc:9000", "secretName": "visavis-s3", "bucket": "faces"}
VERSION = {"storageUri": "s3://faces/models/3", "version": "3", "weightsSha256": "0" * 64}
MATRIX: dict[str, dict[str, Any]] = {
    "defaults": {},
    "digests": {
        "images": {
            **DIGESTS,
            "requireDigest": True,
            "registry": "mirror.local:5000/hub",
            "pullSecrets": ["hub"],
        }
    },
    "deployment": {
        "mlflow": MLFLOW,
        "objectStore": STORE,
        "serving": {"mode": "deployment", **KEYS, "replicas": 3},
    },
    "open deployment of one pod": {
        "mlflow": MLFLOW,
        "serving": {"mode": "deployment", "keys": {"openToAll": True}, "page": False, "consent": ""},
    },
    "autoscaled, watched, signed": {
        "mlflow": MLFLOW,
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "serving": {
            "mode": "deployment",
            **KEYS,
            "certificate": {"secretName": "visavis-signing"},
            "autoscaling": {"enabled": True},
            "disruption": {"minAvailable": 1, "maxUnavailable": 0},
            "tracesUrl": "http://otel.tracing.svc:4318",
        },
    },
    "KServe by promotion": {"serving": {"mode": "inferenceservice"}, "objectStore": STORE},
    "KServe on Knative": {
        "serving": {"mode": "inferenceservice", "inferenceService": VERSION, "env": {"LOG": "info"}}
    },
    "KServe in Standard mode": {
        "serving": {"mode": "inferenceservice", "inferenceService": {**VERSION, "deploymentMode": "Standard"}}
    },
    "basic": {
        "mlflow": {**MLFLOW, "auth": "basic", "secretName": "kfp-mlflow-credentials", "workspace": "faces"},
        "objectStore": STORE,
        "kfpLauncher": {"enabled": True, "pipelineRoot": "s3://faces/pipelines"},
    },
    "bearer": {"mlflow": {**MLFLOW, "auth": "bearer", "secretName": "mlflow-token"}},
    "by account": {
        "mlflow": {**MLFLOW, "auth": "kubernetes", "workspace": "faces"},
        "kfpLauncher": {"enabled": True},
        "serving": {"mode": "deployment", **KEYS},
    },
    "whole namespace": {
        "mlflow": MLFLOW,
        "objectStore": STORE,
        "networkPolicy": {
            "scope": "namespace",
            "kubernetesApi": {"cidrs": ["10.0.0.1/32", "fd00::1/128"]},
            "extraEgress": [{"namespaces": ["tracing"], "cidrs": [], "ports": [4318]}],
        },
    },
    "outside of the cluster": {
        "mlflow": {"trackingUri": "https://mlflow.example.com"},
        "objectStore": {"bucket": "faces"},
        "networkPolicy": {
            "mlflow": {"cidrs": ["203.0.113.7/32"]},
            "objectStore": {"cidrs": ["198.51.100.0/24"]},
            "dns": {"cidrs": ["169.254.20.10/32"]},
        },
    },
    "no policies": {
        "mlflow": MLFLOW,
        "networkPolicy": {"enabled": False},
        "caBundle": {"configMapName": "authorities"},
    },
    "a platform that chooses ids": {"security": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}},
    "big jobs": {
        "training": {
            "nodes": 4,
            "claimName": "clips",
            "nccl": {"NCCL_SOCKET_IFNAME": "eth0"},
            "env": {"OMP_NUM_THREADS": "8"},
            "resources": {"limits": {"nvidia.com/gpu": 8, "memory": "900Gi"}, "requests": {"cpu": "64"}},
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "priorityClassName": "training",
            "runtimeClassName": "nvidia",
        },
        "queue": {"enabled": True, "clusterQueue": "gpus", "apiVersion": "kueue.x-k8s.io/v1beta1"},
    },
    "accounts that are there": {
        "serviceAccounts": {
            "pipeline": {"create": False, "name": "default-editor"},
            "training": {"create": False, "name": "trainer"},
            "serving": {
                "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/faces"}
            },
        },
    },
    "nothing but accounts": {
        "training": {"enabled": False},
        "rbac": {"create": False},
        "tests": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "dev": merged(environment("dev"), SITE),
    "staging": merged(environment("staging"), SITE),
    "prod": merged(environment("prod"), SITE),
    "dev that serves": merged(environment("dev"), SITE, {"serving": {"mode": "deployment"}}),
    "prod that serves": merged(environment("prod"), SITE, {"serving": {"mode": "deployment"}}),
}
cases = pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
NATIVE = (
    "v1",
    "apps/v1",
    "policy/v1",
    "autoscaling/v2",
    "networking.k8s.io/v1",
    "rbac.authorization.k8s.io/v1",
)


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Any:
    before = kubernetes_validate.utils.schema_contents
    kubernetes_validate.utils.schema_contents = functools.cache(before)
    yield
    kubernetes_validate.utils.schema_contents = before


@cases
def test_it_is_lint_free_for_the_oldest_and_the_newest_kubernetes(values: dict[str, Any]) -> None:
    for version in (f"v1.{OLDEST}.0", f"v{VERSIONS[-1]}.0"):
        report = helm_python.lint(CHART, values, strict=True, namespace="team", kube_version=version)
        assert report["errors"] == []
        assert [message for message in report["messages"] if message["severity"] > 1] == []


@cases
def test_every_object_is_valid_for_every_kubernetes(values: dict[str, Any]) -> None:
    for item in render(values):
        if validate(item):
            continue
        assert item["apiVersion"] in NATIVE, f"{item['kind']} has no schema here"
        for version in VERSIONS[VERSIONS.index(f"1.{OLDEST}") :]:
            kubernetes_validate.validate(item, version, strict=True)


@cases
def test_pods_inside_of_custom_resources_are_valid_too(values: dict[str, Any]) -> None:
    objects = render(values)
    wrapped = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
        for _, spec in pods(objects)
    ]
    wrapped += [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "a"},
            "spec": job_template(item)["spec"],
        }
        for item in objects
        if item["kind"] == "TrainingRuntime"
    ]
    for item in wrapped:
        for version in VERSIONS[VERSIONS.index(f"1.{OLDEST}") :]:
            kubernetes_validate.validate(item, version, strict=True)


@cases
def test_a_strict_namespace_takes_every_pod(values: dict[str, Any]) -> None:
    for label, spec in pods(render(values)):
        assert [*violations(spec), *house_rules(spec)] == [], label


@cases
def test_policies_say_protocols_and_never_name_nobody(values: dict[str, Any]) -> None:
    for item in render(values):
        if item["kind"] != "NetworkPolicy":
            continue
        assert item["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in [*item["spec"].get("ingress", []), *item["spec"].get("egress", [])]:
            # An empty list of peers or ports would mean everybody, and every port.
            assert rule.get("from") or rule.get("to")
            assert rule["ports"]
            assert all(port["protocol"] in ("TCP", "UDP") for port in rule["ports"])


@cases
def test_names_are_unique_and_no_text_is_left_over(values: dict[str, Any]) -> None:
    objects = render(values)
    names = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(names) == len(set(names))
    for path, text in texts(values).items():
        assert "<no value>" not in text and "%!" not in text, path


def test_the_matrix_renders_every_kind_that_the_chart_knows() -> None:
    kinds = {item["kind"] for values in MATRIX.values() for item in render(values)}
    assert kinds == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "InferenceService",
        "LocalQueue",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
        "TrainingRuntime",
    }


def test_the_chart_is_of_the_package_s_version() -> None:
    metadata = chart().metadata
    assert metadata["appVersion"] == metadata["version"] == __version__
    assert metadata["kubeVersion"] == f">=1.{OLDEST}.0-0"
    listed = metadata["annotations"]["artifacthub.io/images"]
    used = {box["image"] for _, spec in pods(render(MATRIX["deployment"])) for box in spec["containers"]}
    assert used == {line.split()[-1] for line in listed.splitlines() if "image:" in line}


def test_images_are_pinned_by_digest_over_tag_from_the_mirror() -> None:
    values = {**MATRIX["digests"], "images": merged(MATRIX["digests"]["images"], {"train": {"tag": "7"}})}
    (node,) = job_template(one(render(values), "TrainingRuntime"))["spec"]["template"]["spec"]["containers"]
    assert node["image"] == f"mirror.local:5000/hub/visavis/visavis-train@sha256:{'b' * 64}"


def test_training_gets_shared_memory_and_the_settings_of_the_values() -> None:
    spec = job_template(one(render(MATRIX["big jobs"]), "TrainingRuntime"))["spec"]["template"]["spec"]
    (node,) = spec["containers"]
    assert node["name"] == "node" and node["command"] == ["torchrun"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in node["volumeMounts"]}
    assert mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert mounts["/data"]["persistentVolumeClaim"] == {"claimName": "clips"}
    env = {row["name"]: row["value"] for row in node["env"]}
    assert env == {
        "HOME": "/tmp",
        "NCCL_DEBUG": "WARN",
        "NCCL_SOCKET_IFNAME": "eth0",
        "OMP_NUM_THREADS": "8",
    }
    assert node["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert spec["tolerations"] and spec["nodeSelector"] == {"pool": "gpu"}


def test_the_sdk_takes_the_runtime_for_one_of_torch() -> None:
    from kubeflow_trainer_api import models

    item = one(render(), "TrainingRuntime")
    assert item["metadata"]["labels"]["trainer.kubeflow.org/framework"] == "torch"
    assert job_template(item)["metadata"]["labels"] == {
        "trainer.kubeflow.org/trainjob-ancestor-step": "trainer"
    }
    read = models.TrainerV1alpha1TrainingRuntime.from_dict(item)
    assert read is not None and read.spec is not None and read.spec.ml_policy is not None
    assert read.spec.ml_policy.torch is not None
