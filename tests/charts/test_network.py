"""NetworkPolicies, read as a cluster would: who reaches whom, and that everything else is shut."""

from __future__ import annotations

from typing import Any

import pytest
from chart_rendering import KEYS, MLFLOW, merged, one, pods, render

STORE = {"endpointUrl": "https://s3.store.svc:9000", "secretName": "visavis-s3"}
VALUES: dict[str, Any] = {
    "mlflow": MLFLOW,
    "objectStore": STORE,
    "serving": {"mode": "deployment", **KEYS},
    "networkPolicy": {
        "kubernetesApi": {"cidrs": ["10.0.0.1/32"]},
        "serving": {"namespaces": ["gateway"]},
    },
}
WHOLE = merged(VALUES, {"networkPolicy": {"scope": "namespace"}})


def labels_of(role: str) -> dict[str, str]:
    """Labels of a pod of the release, as the pod templates carry them."""
    return {
        "app.kubernetes.io/name": "visavis",
        "app.kubernetes.io/instance": "faces",
        "app.kubernetes.io/component": role,
    }


STEP = {"pipelines.kubeflow.org/v2_component": "true"}
FOREIGN = {"app": "notebook"}


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def policies(values: dict[str, Any], labels: dict[str, str]) -> list[dict[str, Any]]:
    return [
        item["spec"]
        for item in render(values)
        if item["kind"] == "NetworkPolicy" and matches(item["spec"]["podSelector"], labels)
    ]


def allowed(values: dict[str, Any], labels: dict[str, str], way: str, port: int, **peer: Any) -> bool:
    """Whether a pod's traffic passes. `peer` is a namespace with the labels of a pod in it, or an address."""
    selecting = policies(values, labels)
    if not selecting:
        return True  # no policy covers the pod
    side = {"ingress": "from", "egress": "to"}[way]
    return any(
        any(one_peer(each, **peer) for each in rule[side])
        and any(row["port"] <= port <= row.get("endPort", row["port"]) for row in rule["ports"])
        for spec in selecting
        for rule in spec.get(way, [])
    )


def one_peer(
    rule: dict[str, Any], namespace: str = "", pod: dict[str, str] | None = None, address: str = ""
) -> bool:
    if "ipBlock" in rule:
        return bool(address) and rule["ipBlock"]["cidr"] == address
    there = rule.get("namespaceSelector")
    in_namespace = (
        matches(there, {"kubernetes.io/metadata.name": namespace})
        if there is not None
        else namespace == "team"
    )
    return bool(namespace) and in_namespace and matches(rule.get("podSelector", {}), pod or {})


@pytest.mark.parametrize("role", ["training", "serving", "test"])
def test_pods_reach_dns_mlflow_and_the_store_and_nothing_else(role: str) -> None:
    def out(port: int, **peer: Any) -> bool:
        return allowed(VALUES, labels_of(role), "egress", port, **peer)

    assert out(53, namespace="kube-system", pod={"k8s-app": "kube-dns"})
    assert out(5000, namespace="mlflow") and out(9000, namespace="store")
    assert not out(22, namespace="mlflow") and not out(443, address="0.0.0.0/0")
    assert not out(80, namespace="other") and not out(53, namespace="kube-system", pod={"k8s-app": "proxy"})
    assert out(443, address="10.0.0.1/32") == (role == "test")


def test_the_service_is_asked_by_whom_the_values_name() -> None:
    def into(port: int, **peer: Any) -> bool:
        return allowed(VALUES, labels_of("serving"), "ingress", port, **peer)

    assert into(8080, namespace="team", pod=FOREIGN) and into(8080, namespace="gateway")
    assert into(8080, namespace="monitoring")
    assert not into(8080, namespace="other") and not into(22, namespace="gateway")


def test_only_nodes_of_a_job_reach_each_other() -> None:
    training = labels_of("training")
    for way in ("ingress", "egress"):
        assert allowed(VALUES, training, way, 29500, namespace="team", pod=training)
        assert allowed(VALUES, training, way, 51234, namespace="team", pod=training)
        assert not allowed(VALUES, training, way, 29500, namespace="other", pod=training)
        stranger = {**training, "app.kubernetes.io/instance": "voices"}
        assert not allowed(VALUES, training, way, 29500, namespace="team", pod=stranger)
    assert not allowed(VALUES, training, "ingress", 8080, namespace="team", pod=FOREIGN)


def test_the_release_leaves_other_pods_alone_and_the_namespace_does_not() -> None:
    assert policies(VALUES, FOREIGN) == [] and policies(VALUES, STEP) == []
    assert not allowed(WHOLE, FOREIGN, "egress", 443, namespace="other")
    assert not allowed(WHOLE, FOREIGN, "ingress", 443, namespace="team", pod=FOREIGN)


def test_steps_in_a_shut_namespace_reach_what_they_report_to() -> None:
    def out(port: int, **peer: Any) -> bool:
        return allowed(WHOLE, STEP, "egress", port, **peer)

    assert out(443, address="10.0.0.1/32") and out(8887, namespace="kubeflow")
    assert out(5000, namespace="mlflow") and out(9000, namespace="store")
    assert not out(443, namespace="other")
    assert not allowed(WHOLE, STEP, "ingress", 80, namespace="team", pod=FOREIGN)


def test_kserve_s_pods_are_found_by_kserve_s_label() -> None:
    values = merged(VALUES, {"serving": {"mode": "inferenceservice"}})
    pod = {"serving.kserve.io/inferenceservice": "faces"}
    assert allowed(values, pod, "ingress", 8012, namespace="knative-serving")
    assert allowed(values, pod, "egress", 9000, namespace="store")
    assert not allowed(values, pod, "ingress", 8012, namespace="other")
    standard = merged(values, {"serving": {"inferenceService": {"deploymentMode": "Standard"}}})
    assert not allowed(standard, pod, "ingress", 8012, namespace="knative-serving")
    assert allowed(standard, pod, "ingress", 8080, namespace="gateway")


def test_the_labels_of_policies_are_those_of_the_pods() -> None:
    objects = render(VALUES)
    runtime = one(objects, "TrainingRuntime")["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]
    assert labels_of("training").items() <= runtime["spec"]["template"]["metadata"]["labels"].items()
    deployment = one(objects, "Deployment")["spec"]["template"]
    assert labels_of("serving").items() <= deployment["metadata"]["labels"].items()
    tests = [item for item in objects if item["kind"] == "Pod"]
    assert tests and all(labels_of("test").items() <= item["metadata"]["labels"].items() for item in tests)
    assert len(list(pods(objects))) == 2 + len(tests)


@pytest.mark.parametrize(
    ("address", "rule", "expected"),
    [
        ("http://mlflow.ml.svc:5000", {}, (5000, "ml")),
        ("http://mlflow.ml.svc.cluster.local/prefix", {}, (80, "ml")),
        ("https://mlflow.ml.svc", {"ports": [8443]}, (8443, "ml")),
        ("https://mlflow.example.com", {"namespaces": ["gateway"]}, (443, "gateway")),
    ],
)
def test_namespace_and_port_are_read_from_the_address(
    address: str, rule: dict[str, Any], expected: tuple[int, str]
) -> None:
    values = {"mlflow": {"trackingUri": address}, "networkPolicy": {"mlflow": rule}}
    port, namespace = expected
    assert allowed(values, labels_of("training"), "egress", port, namespace=namespace)
