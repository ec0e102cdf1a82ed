"""The chart as Helm's own engine renders it, and the pods that are in what it renders."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "visavis"
DIGESTS = {
    image: {"digest": f"sha256:{at * 64}"}
    for at, image in zip("abc", ("tools", "train", "serve"), strict=True)
}
MLFLOW = {"trackingUri": "http://mlflow.mlflow.svc.cluster.local:5000"}
KEYS = {"keys": {"secretName": "visavis-keys"}}
SITE = {
    "images": DIGESTS,
    "mlflow": MLFLOW,
    "queue": {"clusterQueue": "gpus"},
    "networkPolicy": {"kubernetesApi": {"cidrs": ["10.0.0.1/32"]}},
}
"""What a site adds to the environment files."""


@cache
def chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Values over values, as `helm -f one.yaml -f two.yaml` merges them."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def environment(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CHART / "environments" / f"{name}.yaml").read_text()))


def texts(
    values: Mapping[str, Any] | None = None, name: str = "faces", namespace: str = "team"
) -> dict[str, str]:
    rendered = chart().render(dict(values or {}), name=name, namespace=namespace)
    return {path.removeprefix("visavis/templates/"): text for path, text in rendered.items()}


def render(
    values: Mapping[str, Any] | None = None, name: str = "faces", namespace: str = "team"
) -> list[dict[str, Any]]:
    """Returns the objects that are rendered."""
    found = []
    for path, text in texts(values, name, namespace).items():
        if path != "NOTES.txt":
            found += [document for document in yaml.safe_load_all(text) if document]
    return found


def one(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """Returns the only object of a kind, or that of a name."""
    (found,) = [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]
    return found


def job_template(runtime: dict[str, Any]) -> dict[str, Any]:
    """Returns the Job of a TrainingRuntime's nodes."""
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    return dict(job["template"])


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the pods that the objects become: what they belong to, and their spec."""
    for item in objects:
        label = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] == "Pod":
            yield label, item["spec"]
        elif item["kind"] == "Deployment":
            yield label, item["spec"]["template"]["spec"]
        elif item["kind"] == "TrainingRuntime":
            yield label, job_template(item)["spec"]["template"]["spec"]
        elif item["kind"] == "InferenceService":
            own = ("minReplicas", "maxReplicas", "canaryTrafficPercent", "name")
            for predictor in [
                item["spec"]["predictor"],
                *(canary["predictor"] for canary in item["spec"].get("canary", [])),
            ]:
                yield label, {key: value for key, value in predictor.items() if key not in own}
