"""Schemas of the custom resources in the chart, as strict as the API server: a field that is unknown is a mistake.

TrainingRuntime comes from the models of Kubeflow Trainer's API, InferenceService from those of KServe's SDK; LocalQueue
and ServiceMonitor are written down in `crds/` from the definitions that Kueue and the Prometheus operator publish.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

_PLAIN = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "object": {},
    "datetime": {"type": "string"},
    "ResourceQuantity": {"type": ["string", "integer"]},
}


def validate(item: dict[str, Any]) -> bool:
    """Checks a custom resource; says whether its kind is one.

    Raises:
        jsonschema.ValidationError: If a field is unknown or wrong.
    """
    group = item["apiVersion"].split("/")[0]
    find = _SCHEMAS.get((group, item["kind"]))
    if find is None:
        return False
    jsonschema.Draft202012Validator(find()).validate(item)
    return True


@cache
def trainer(kind: str) -> dict[str, Any]:
    """Returns the schema of a kind of Kubeflow Trainer."""
    from kubeflow_trainer_api import models

    schema: dict[str, Any] = getattr(models, f"TrainerV1alpha1{kind}").model_json_schema(by_alias=True)
    for definition in (schema, *schema["$defs"].values()):
        properties = definition.get("properties", {})
        if (
            "actual_instance" in properties
        ):  # an amount or a port: text or number, not what pydantic makes of it
            definition.clear()
            definition["type"] = ["string", "number"]
        elif properties:
            definition["additionalProperties"] = False
    return schema


@cache
def kserve(kind: str) -> dict[str, Any]:
    """Returns the schema of a kind of KServe."""
    definitions: dict[str, Any] = {}
    root = _definition(kind, definitions)
    return {**root, "$defs": definitions}


def _definition(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a type of the generated clients, whose own types go into the definitions."""
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        return {"type": "array", "items": _definition(inner[1], definitions)}
    if inner := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return {"type": "object", "additionalProperties": _definition(inner[1], definitions)}
    if kind not in definitions:
        definitions[kind] = {}
        model = _model(kind)
        if model is not None:
            definitions[kind] = {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    model.attribute_map[name]: _definition(type_, definitions)
                    for name, type_ in model.openapi_types.items()
                },
            }
    return {"$ref": f"#/$defs/{kind}"}


def _model(kind: str) -> Any:
    import kserve
    from kubernetes import client

    return getattr(kserve, kind, None) or getattr(client, kind, None)


@cache
def _written(name: str) -> dict[str, Any]:
    text = (Path(__file__).parent / "crds" / f"{name}.json").read_text()
    return dict(json.loads(text))


_SCHEMAS: dict[tuple[str, str], Callable[[], dict[str, Any]]] = {
    ("trainer.kubeflow.org", "TrainingRuntime"): lambda: trainer("TrainingRuntime"),
    ("trainer.kubeflow.org", "TrainJob"): lambda: trainer("TrainJob"),
    ("serving.kserve.io", "InferenceService"): lambda: kserve("V1beta1InferenceService"),
    ("kueue.x-k8s.io", "LocalQueue"): lambda: _written("localqueue"),
    ("monitoring.coreos.com", "ServiceMonitor"): lambda: _written("servicemonitor"),
}
