"""Two teams share a cluster: nothing of theirs meets, nobody may do more than needed, no secret is in a manifest."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from chart_rendering import DIGESTS, KEYS, MLFLOW, merged, one, pods, render

CLUSTER_WIDE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterTrainingRuntime",
    "ClusterQueue",
    "CustomResourceDefinition",
    "Namespace",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
}
FULL: dict[str, Any] = {
    "images": DIGESTS,
    "mlflow": {**MLFLOW, "auth": "basic", "secretName": "kfp-mlflow-credentials", "workspace": "faces"},
    "objectStore": {
        "endpointUrl": "https://s3.store.svc:9000",
        "secretName": "visavis-s3",
        "bucket": "faces",
    },
    "queue": {"enabled": True, "clusterQueue": "gpus"},
    "serving": {"mode": "deployment", **KEYS, "autoscaling": {"enabled": True}},
    "serviceMonitor": {"enabled": True},
    "networkPolicy": {"scope": "namespace", "kubernetesApi": {"cidrs": ["10.0.0.1/32"]}},
}
LAUNCHER = {"kfpLauncher": {"enabled": True, "pipelineRoot": "s3://faces/pipelines"}}
KSERVE = {
    "serviceMonitor": {"enabled": False},
    "serving": {
        "mode": "inferenceservice",
        "autoscaling": {"enabled": False},
        "inferenceService": {"storageUri": "s3://faces/3", "version": "3"},
    },
}
VARIANTS = {"deployment": FULL, "KServe": merged(FULL, KSERVE)}
variants = pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)


def keys(objects: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(item["kind"], item["metadata"]["namespace"], item["metadata"]["name"]) for item in objects}


@variants
def test_nothing_reaches_beyond_the_namespace(values: dict[str, Any]) -> None:
    for item in render(merged(values, LAUNCHER), "faces", "red"):
        assert item["kind"] not in CLUSTER_WIDE
        assert item["metadata"]["namespace"] == "red"
        for subject in item.get("subjects", []):
            assert subject["namespace"] == "red"


@variants
def test_releases_of_one_name_in_two_namespaces_never_meet(values: dict[str, Any]) -> None:
    everything = merged(values, LAUNCHER)
    assert not keys(render(everything, "faces", "red")) & keys(render(everything, "faces", "blue"))


@variants
def test_releases_in_one_namespace_never_meet(values: dict[str, Any]) -> None:
    names = ["a", "a-train", "a-serving", "a-serving-env", "a-test", "faces", "visavis", "faces-visavis"]
    found = {name: keys(render(values, name, "red")) for name in names}
    for one_name, other in itertools.combinations(names, 2):
        assert not found[one_name] & found[other], (one_name, other)


def test_selectors_catch_only_pods_of_their_own_release() -> None:
    for item in render(FULL, "faces", "red"):
        if item["kind"] in ("Service", "ServiceMonitor", "Deployment", "PodDisruptionBudget"):
            selector = item["spec"]["selector"]
            labels = selector.get("matchLabels", selector)
            assert labels["app.kubernetes.io/instance"] == "faces"
            assert labels["app.kubernetes.io/component"] == "serving"


def rights(objects: list[dict[str, Any]], account: str) -> dict[str, set[str]]:
    """What an account may do: `group/resource` (or `group/resource:name`) to its verbs."""
    may: dict[str, set[str]] = {}
    for binding in [item for item in objects if item["kind"] == "RoleBinding"]:
        if account not in [subject["name"] for subject in binding["subjects"]]:
            continue
        for rule in one(objects, "Role", binding["roleRef"]["name"])["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
            for group, resource in itertools.product(rule["apiGroups"], rule["resources"]):
                for name in rule.get("resourceNames", [""]):
                    place = f"{group}/{resource}:{name}".rstrip(":")
                    may.setdefault(place, set()).update(rule["verbs"])
    return may


def test_the_pipeline_may_do_what_it_must_and_no_more() -> None:
    assert rights(render(FULL), "faces-pipeline") == {
        "trainer.kubeflow.org/trainjobs": {"create", "delete", "get", "list", "watch"},
        "trainer.kubeflow.org/trainingruntimes": {"get", "list"},
        "/pods": {"get", "list", "watch"},
        "/events": {"get", "list", "watch"},
        "/pods/log": {"get"},
        "serving.kserve.io/inferenceservices": {"create", "get", "list", "patch"},
        "kueue.x-k8s.io/localqueues:faces": {"get"},
        "/secrets:visavis-s3": {"get"},
        "/secrets:kfp-mlflow-credentials": {"get"},
        "argoproj.io/workflowtaskresults": {"create", "patch"},
        "/configmaps:kfp-launcher": {"get"},
    }


def test_further_secrets_are_read_by_name_only() -> None:
    may = rights(render({"rbac": {"secretNames": ["visavis-webhook"]}}), "faces-pipeline")
    assert may["/secrets:visavis-webhook"] == {"get"} and "/secrets" not in may


def test_training_and_serving_may_do_nothing_and_hold_no_token() -> None:
    objects = render(FULL)
    for role in ("training", "serving"):
        assert rights(objects, f"faces-{role}") == {}
        assert one(objects, "ServiceAccount", f"faces-{role}")["automountServiceAccountToken"] is False
    tokens = {label for label, spec in pods(objects) if spec["automountServiceAccountToken"]}
    assert tokens == {"Pod/faces-test-cluster"}


def test_only_mlflow_by_account_hands_out_tokens() -> None:
    objects = render({"mlflow": {**MLFLOW, "auth": "kubernetes"}, "serving": {"mode": "deployment", **KEYS}})
    assert all(spec["automountServiceAccountToken"] for _, spec in pods(objects))
    assert rights(objects, "faces-serving") == {
        "mlflow.kubeflow.org/experiments": {"get", "list"},
        "mlflow.kubeflow.org/registeredmodels": {"get", "list"},
    }
    assert rights(objects, "faces-training") == {
        "mlflow.kubeflow.org/experiments": {"create", "get", "list", "update"}
    }


@variants
def test_secrets_are_named_and_never_held(values: dict[str, Any]) -> None:
    objects = render(merged(values, LAUNCHER))
    assert not [item for item in objects if item["kind"] == "Secret"]
    for _, spec in pods(objects):
        for box in spec["containers"]:
            for row in box.get("env", []):
                if row["name"].startswith(("MLFLOW_TRACKING_USER", "MLFLOW_TRACKING_PASS", "AWS_S")):
                    assert row["valueFrom"]["secretKeyRef"]["name"] == "kfp-mlflow-credentials"


def plugin(values: dict[str, Any]) -> dict[str, Any]:
    launcher = one(render(merged(values, LAUNCHER)), "ConfigMap", "kfp-launcher")
    return dict(json.loads(launcher["data"]["plugins.mlflow"]))


def test_the_launcher_hands_steps_the_run_that_kfp_made() -> None:
    assert plugin(FULL) == {
        "endpoint": MLFLOW["trackingUri"],
        "settings": {
            "authType": "basic-auth",
            "credentialSecretRef": {"usernameKey": "username", "passwordKey": "password"},
            "defaultExperimentName": "visavis",
            "injectUserEnvVars": True,
            "workspacesEnabled": True,
        },
    }
    assert plugin({"mlflow": MLFLOW})["settings"]["authType"] == "none"
    bearer = {"mlflow": {**MLFLOW, "auth": "bearer", "secretName": "kfp-mlflow-credentials"}}
    assert plugin(bearer)["settings"]["credentialSecretRef"] == {"tokenKey": "token"}


def test_the_launcher_names_the_store_and_its_secret() -> None:
    import yaml

    data = one(render(merged(FULL, LAUNCHER)), "ConfigMap", "kfp-launcher")["data"]
    assert data["defaultPipelineRoot"] == "s3://faces/pipelines"
    assert yaml.safe_load(data["providers"])["s3"]["default"] == {
        "endpoint": "s3.store.svc:9000",
        "region": "us-east-1",
        "disableSSL": False,
        "credentials": {
            "fromEnv": False,
            "secretRef": {
                "secretName": "visavis-s3",
                "accessKeyKey": "AWS_ACCESS_KEY_ID",
                "secretKeyKey": "AWS_SECRET_ACCESS_KEY",
            },
        },
    }
    by_role = one(render({**LAUNCHER}), "ConfigMap", "kfp-launcher")["data"]
    assert yaml.safe_load(by_role["providers"])["s3"]["default"]["credentials"] == {"fromEnv": True}
