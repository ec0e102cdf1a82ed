"""The checkers of this folder find what they are there to find."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from chart_rendering import one, pods, render
from custom_resources import validate
from pod_security import house_rules, violations

Change = Callable[[dict[str, Any]], Any]
BAD_PODS: dict[str, tuple[Change, str]] = {
    "host network": (lambda pod: pod.update(hostNetwork=True), "hostNetwork is on"),
    "host path": (
        lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        "volume x is of the kind hostPath",
    ),
    "root": (lambda pod: pod["securityContext"].update(runAsUser=0), "runAsUser is 0"),
    "root of a container": (lambda pod: context(pod).update(runAsUser=0), "node: runAsUser is 0"),
    "root allowed": (lambda pod: context(pod).update(runAsNonRoot=False), "node: runAsNonRoot is not true"),
    "sysctl": (
        lambda pod: pod["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
        "sysctl kernel.msgmax",
    ),
    "privileged": (lambda pod: context(pod).update(privileged=True), "node: privileged"),
    "escalation": (
        lambda pod: context(pod).pop("allowPrivilegeEscalation"),
        "node: allowPrivilegeEscalation is not false",
    ),
    "capabilities": (lambda pod: context(pod).pop("capabilities"), "node: capabilities are not dropped"),
    "capability": (
        lambda pod: context(pod)["capabilities"].update(add=["IPC_LOCK"]),
        "node: capability IPC_LOCK is added",
    ),
    "seccomp": (
        lambda pod: context(pod).update(seccompProfile={"type": "Unconfined"}),
        "node: no seccomp profile",
    ),
    "port of the host": (
        lambda pod: pod["containers"][0].update(ports=[{"containerPort": 1, "hostPort": 1}]),
        "node: hostPort",
    ),
    "SELinux": (lambda pod: context(pod).update(seLinuxOptions={"type": "spc_t"}), "node: SELinux options"),
    "AppArmor": (
        lambda pod: context(pod).update(appArmorProfile={"type": "Unconfined"}),
        "node: AppArmor is unconfined",
    ),
    "a container before it": (
        lambda pod: pod.update(initContainers=[{"name": "first"}]),
        "first: allowPrivilegeEscalation is not false",
    ),
    "a root that can be written": (
        lambda pod: context(pod).update(readOnlyRootFilesystem=False),
        "node: the root can be written",
    ),
    "a token unsaid": (
        lambda pod: pod.pop("automountServiceAccountToken"),
        "automountServiceAccountToken is not said",
    ),
    "no /tmp": (lambda pod: pod["containers"][0]["volumeMounts"].pop(1), "node: /tmp cannot be written"),
}


def context(pod: dict[str, Any]) -> Any:
    return pod["containers"][0]["securityContext"]


@pytest.mark.parametrize(("change", "words"), BAD_PODS.values(), ids=BAD_PODS)
def test_a_bad_pod_is_found(change: Change, words: str) -> None:
    ((_, good),) = [pod for pod in pods(render()) if pod[0].startswith("TrainingRuntime")]
    pod = copy.deepcopy(good)
    change(pod)
    assert words in [*violations(pod), *house_rules(pod)]


VALUES = {
    "queue": {"enabled": True, "clusterQueue": "gpus"},
    "mlflow": {"trackingUri": "http://mlflow.mlflow.svc:5000"},
}
SERVED = {"mode": "inferenceservice", "inferenceService": {"storageUri": "s3://faces/3", "version": "3"}}
WATCHED = {"mode": "deployment", "keys": {"openToAll": True}}
BAD_RESOURCES: dict[str, tuple[str, Change]] = {
    "runtime, unknown": ("TrainingRuntime", lambda spec: spec.update(numNodes=1)),
    "runtime, unknown deep inside": (
        "TrainingRuntime",
        lambda spec: spec["template"]["spec"]["replicatedJobs"][0]["template"]["spec"].update(parallel=1),
    ),
    "runtime, wrong type": ("TrainingRuntime", lambda spec: spec["mlPolicy"].update(numNodes="1")),
    "service, unknown": ("InferenceService", lambda spec: spec["predictor"].update(canary=1)),
    "service, unknown in its container": (
        "InferenceService",
        lambda spec: spec["predictor"]["containers"][0].update(environments=[]),
    ),
    "service, wrong type": ("InferenceService", lambda spec: spec["predictor"].update(minReplicas="1")),
    "queue, unknown": ("LocalQueue", lambda spec: spec.update(queue="gpus")),
    "queue, wrong": ("LocalQueue", lambda spec: spec.update(clusterQueue="No Name")),
    "monitor, unknown": ("ServiceMonitor", lambda spec: spec["endpoints"][0].update(url="/metrics")),
    "monitor, wrong": ("ServiceMonitor", lambda spec: spec["endpoints"][0].update(interval="often")),
}


@pytest.mark.parametrize(("kind", "change"), BAD_RESOURCES.values(), ids=BAD_RESOURCES)
def test_a_bad_custom_resource_is_found(kind: str, change: Change) -> None:
    watched = {"serving": WATCHED, "serviceMonitor": {"enabled": True}}
    more = watched if kind == "ServiceMonitor" else {"serving": SERVED}
    item = one(render({**VALUES, **more}), kind)
    assert validate(item)
    change(item["spec"])
    with pytest.raises(jsonschema.ValidationError):
        validate(item)
