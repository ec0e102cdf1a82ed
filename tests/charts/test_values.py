"""Values: all in the schema; what is unknown, hostile or contradictory is refused with the field's name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
from chart_rendering import CHART, DIGESTS, KEYS, MLFLOW, merged, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
FREE = "global"
"""Left to a chart that has this one inside."""


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return SCHEMA["definitions"][reference.rpartition("/")[2]] if reference else schema


def objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every part of the schema that describes an object."""
    schema = resolved(schema)
    if schema.get("type") == "object":
        yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from objects(inner, f"{path}.{name}".lstrip("."))
    several = [schema["items"]] if "items" in schema else []
    for inner in (*several, *schema.get("patternProperties", {}).values()):
        yield from objects(inner, f"{path}[]")


def test_the_schema_leaves_no_door_open() -> None:
    seen = dict(objects(SCHEMA))
    assert len(seen) > 30
    for path, schema in seen.items():
        assert path == FREE or schema.get("additionalProperties") is False, path


def test_schema_and_values_know_the_same_fields() -> None:
    def compare(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        known = set(resolved(schema).get("properties", {})) - {FREE}
        if not known or (not values and path):
            return  # a map, or resources without amounts
        assert known == set(values), path
        for name in known:
            if isinstance(values[name], dict):
                compare(resolved(schema)["properties"][name], values[name], f"{path}.{name}")

    compare(SCHEMA, helm_python.Chart.load(CHART).values, "")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"serving": {"repicas": 2}}, "/serving"),
    "an unknown section": ({"servings": {}}, "servings"),
    "a wrong type": ({"serving": {"replicas": "two"}}, "/serving/replicas"),
    "no pods": ({"serving": {"replicas": 0}}, "/serving/replicas"),
    "an unknown mode": ({"serving": {"mode": "lambda"}}, "/serving/mode"),
    "root": ({"security": {"runAsUser": 0}}, "/security/runAsUser"),
    "a shell in an image": ({"images": {"train": {"repository": "x; rm -rf /"}}}, "/images/train/repository"),
    "a short digest": ({"images": {"train": {"digest": "sha256:abc"}}}, "/images/train/digest"),
    "a tag that opens a line": ({"images": {"serve": {"tag": "1\n  privileged: true"}}}, "/images/serve/tag"),
    "an image from a URL": ({"images": {"registry": "https://hub"}}, "/images/registry"),
    "an address with a line": ({"mlflow": {"trackingUri": "http://a\nb: c"}}, "/mlflow/trackingUri"),
    "a file as address": ({"mlflow": {"trackingUri": "sqlite:///mlflow.db"}}, "/mlflow/trackingUri"),
    "a template in a name": ({"mlflow": {"secretName": "{{ .Release.Name }}"}}, "/mlflow/secretName"),
    "a path as claim": ({"training": {"claimName": "../../etc"}}, "/training/claimName"),
    "a variable without a name": ({"training": {"env": {"A B": "1"}}}, "/training/env"),
    "a variable with a line": ({"training": {"env": {"A": "1\n- name: B"}}}, "/training/env/A"),
    "a number as variable": ({"training": {"env": {"A": 1}}}, "/training/env/A"),
    "another library's settings": ({"training": {"nccl": {"LD_PRELOAD": "x"}}}, "/training/nccl"),
    "a shared memory without unit": ({"training": {"sharedMemory": "lots"}}, "/training/sharedMemory"),
    "a resource of a strange amount": (
        {"training": {"resources": {"limits": {"memory": "-1Gi"}}}},
        "/training/resources/limits/memory",
    ),
    "claims": ({"training": {"resources": {"claims": []}}}, "/training/resources"),
    "an effect that is none": (
        {"training": {"tolerations": [{"effect": "Never"}]}},
        "/training/tolerations/0/effect",
    ),
    "a node by a strange label": ({"serving": {"nodeSelector": {"a b": "c"}}}, "/serving/nodeSelector"),
    "half an address range": (
        {"networkPolicy": {"mlflow": {"cidrs": ["10.0.0.0"]}}},
        "/networkPolicy/mlflow/cidrs/0",
    ),
    "a port that is none": (
        {"networkPolicy": {"mlflow": {"ports": [70000]}}},
        "/networkPolicy/mlflow/ports/0",
    ),
    "a rule for everybody": (
        {"networkPolicy": {"extraEgress": [{"ports": [443]}]}},
        "/networkPolicy/extraEgress/0",
    ),
    "a rule for nobody": (
        {"networkPolicy": {"extraEgress": [{"ports": [443], "cidrs": []}]}},
        "/networkPolicy/extraEgress/0",
    ),
    "a model from elsewhere": ({"serving": {"model": "/models/x"}}, "/serving/model"),
    "weights that KServe cannot read": (
        {"serving": {"inferenceService": {"storageUri": "models:/visavis/3"}}},
        "/serving/inferenceService/storageUri",
    ),
    "a consent of two lines": ({"serving": {"consent": "yes\n- --open-to-all"}}, "/serving/consent"),
    "a queue of another API": ({"queue": {"apiVersion": "v1"}}, "/queue/apiVersion"),
    "often": ({"serviceMonitor": {"interval": "often"}}, "/serviceMonitor/interval"),
}


@pytest.mark.parametrize(("values", "field"), REFUSED.values(), ids=REFUSED)
def test_the_schema_refuses_and_names_the_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(helm_python.HelmError, match="values") as caught:
        render(values)
    assert field in str(caught.value)


SERVES = {"mode": "deployment", **KEYS}
KFP = {"enabled": True}
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a password in an address": (
        {
            "mlflow": {"trackingUri": "https://admin:hunter2@mlflow.example.com"},
            "networkPolicy": {"enabled": False},
        },
        "mlflow.trackingUri is no plain address",
    ),
    "a key in a query": (
        {"objectStore": {"endpointUrl": "https://s3.store.svc?key=hunter2"}},
        "objectStore.endpointUrl is no plain address",
    ),
    "a root with credentials": (
        {"kfpLauncher": {"enabled": True, "pipelineRoot": "s3://olivia:hunter2@faces"}},
        "kfpLauncher.pipelineRoot is no plain address",
    ),
    "a password behind a policy": (
        {"mlflow": {"trackingUri": "https://admin:hunter2@mlflow.example.com"}},
        "",
    ),
    "keys and no keys": (
        {"mlflow": MLFLOW, "serving": merged(SERVES, {"keys": {"openToAll": True}})},
        "serving.keys.secretName and serving.keys.openToAll exclude each other",
    ),
    "neither": ({"mlflow": MLFLOW, "serving": {"mode": "deployment"}}, "nobody may ask"),
    "no registry": ({"serving": SERVES}, "mlflow.trackingUri is empty"),
    "a tag where digests are asked": ({"images": {"requireDigest": True}}, "and images.requireDigest is on"),
    "a secret as variable": (
        {"training": {"env": {"AWS_SECRET_ACCESS_KEY": "hunter2"}}},
        "training.env.AWS_SECRET_ACCESS_KEY sounds like a secret",
    ),
    "a token as variable": (
        {"serving": {"env": {"HF_TOKEN": "hunter2"}}},
        "serving.env.HF_TOKEN sounds like a secret",
    ),
    "one digest missing": (
        {"images": merged(DIGESTS, {"requireDigest": True, "train": {"digest": ""}})},
        "images.train.digest is empty",
    ),
    "no secret": ({"mlflow": {**MLFLOW, "auth": "basic"}}, "mlflow.secretName is empty"),
    "a secret for nothing": (
        {"mlflow": {**MLFLOW, "secretName": "x"}},
        "mlflow.auth is none, which uses none",
    ),
    "a secret that KFP does not read": (
        {"mlflow": {**MLFLOW, "auth": "bearer", "secretName": "x"}, "kfpLauncher": KFP},
        "KFP reads a Secret named kfp-mlflow-credentials only",
    ),
    "a launcher without settings": ({"kfpLauncher": KFP}, "has nothing to configure"),
    "an account made and given": (
        {"serviceAccounts": {"training": {"name": "x"}}},
        "serviceAccounts.training.create and serviceAccounts.training.name exclude each other",
    ),
    "no account": ({"serviceAccounts": {"serving": {"create": False}}}, "no name is given"),
    "a queue of nothing": ({"queue": {"enabled": True}}, "needs queue.clusterQueue"),
    "an MLflow that nobody reaches": (
        {"mlflow": {"trackingUri": "https://mlflow.example.com"}},
        "networkPolicy.mlflow lets nobody reach mlflow.example.com",
    ),
    "a store that nobody reaches": (
        {"objectStore": {"secretName": "visavis-s3"}},
        "networkPolicy.objectStore lets nobody reach s3.us-east-1.amazonaws.com",
    ),
    "steps that cannot report": (
        {"networkPolicy": {"scope": "namespace"}},
        "networkPolicy.kubernetesApi.cidrs is empty",
    ),
    "two scalers": (
        {"serving": {"mode": "inferenceservice", "autoscaling": {"enabled": True}}},
        "serving.autoscaling.enabled and serving.mode inferenceservice exclude each other",
    ),
    "two watchers": (
        {"serving": {"mode": "inferenceservice"}, "serviceMonitor": {"enabled": True}},
        "serviceMonitor.enabled and serving.mode inferenceservice exclude each other",
    ),
    "more at least than at most": (
        {"mlflow": MLFLOW, "serving": {**SERVES, "autoscaling": {"enabled": True, "minReplicas": 9}}},
        "minReplicas is more than maxReplicas",
    ),
    "two budgets": (
        {"mlflow": MLFLOW, "serving": {**SERVES, "disruption": {"minAvailable": 1}}},
        "serving.disruption.minAvailable and maxUnavailable exclude each other",
    ),
    "no budget": (
        {"mlflow": MLFLOW, "serving": {**SERVES, "disruption": {"maxUnavailable": 0}}},
        "are both 0",
    ),
    "a node that can never be drained": (
        {
            "mlflow": MLFLOW,
            "serving": {**SERVES, "replicas": 2, "disruption": {"minAvailable": 2, "maxUnavailable": 0}},
        },
        "leaves no pod of 2 to go",
    ),
    "a version without KServe": (
        {"serving": {"inferenceService": {"storageUri": "s3://faces/3", "version": "3"}}},
        "needs serving.mode inferenceservice",
    ),
    "weights without a version": (
        {"serving": {"mode": "inferenceservice", "inferenceService": {"storageUri": "s3://faces/3"}}},
        "needs serving.inferenceService.version",
    ),
}


@pytest.mark.parametrize(("values", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_what_excludes_each_other_is_refused_with_the_fix(values: dict[str, Any], words: str) -> None:
    with pytest.raises(helm_python.HelmRenderError) as caught:
        render(values)
    assert words in str(caught.value) and "; fix: " in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["9lives", "a.b", "a" * 41])
def test_a_release_that_cannot_name_its_objects_is_refused(name: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match="cannot name all objects"):
        render(name=name)
