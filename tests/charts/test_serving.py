"""What serves: `visavis serve` takes the command line that the chart writes, and a promotion fits the chart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from chart_rendering import KEYS, MLFLOW, merged, one, pods, render
from custom_resources import validate
from pod_security import house_rules, violations

from visavis.cli import app
from visavis.registry.inference_service import CONTAINER, inference_service, read_serving
from visavis.registry.versions import Version

DEPLOYED: dict[str, Any] = {"mlflow": MLFLOW, "serving": {"mode": "deployment", **KEYS}}
SHA = "0" * 64
OWNED: dict[str, Any] = {
    "serving": {
        "mode": "inferenceservice",
        "env": {"LOG": "info"},
        "tracesUrl": "http://otel.tracing.svc:4318",
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "inferenceService": {"storageUri": "s3://faces/3", "version": "3", "weightsSha256": SHA},
    }
}
CHAMPION = Version("faces", "3", "models:/faces/3", ("champion",), {"weights.sha256": SHA})
CANARY = Version("faces", "4", "models:/faces/4", ("canary",), {"canary.percent": "20"})


def served(values: dict[str, Any]) -> dict[str, Any]:
    (box,) = one(render(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(box)


def asked(values: dict[str, Any]) -> dict[str, Any]:
    """What `visavis serve` makes of the arguments that the chart writes."""
    box = served(values)
    assert box["command"] == ["visavis", "serve"]
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return dict(command.make_context("serve", list(box["args"])).params)


def test_the_command_line_says_what_the_values_say() -> None:
    signed = {"certificate": {"secretName": "signing"}, "page": False, "consent": "", "followSeconds": 0}
    given = asked(merged(DEPLOYED, {"serving": {**signed, "model": "models:/faces/3", "mostTogether": 4}}))
    assert given["model"] == "models:/faces/3" and given["host"] == "0.0.0.0" and given["port"] == 8080
    assert given["keys"] == Path("/etc/visavis/keys/keys.yaml") and given["open_to_all"] is False
    assert given["page"] is False and given["consent"] == "" and given["most_together"] == 4
    assert given["follow"] == 0 and given["deadline"] == 60
    assert given["certificate_key"] == Path("/etc/visavis/certificate/tls.key")
    opened = asked({"mlflow": MLFLOW, "serving": {"mode": "deployment", "keys": {"openToAll": True}}})
    assert opened["keys"] is None and opened["open_to_all"] is True and opened["page"] is True


def test_what_the_chart_does_not_say_is_what_the_command_takes_by_itself() -> None:
    given = asked(DEPLOYED)
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    defaults = dict(command.make_context("serve", []).params)
    own = {"host", "port", "keys", "model"}
    assert {name: given[name] for name in defaults if name not in own} == {
        name: value for name, value in defaults.items() if name not in own
    }


def test_probes_ask_the_routes_of_the_service(repository: Path) -> None:
    # Read, not imported: what the service stands on takes long to load.
    source = (repository / "src" / "visavis" / "serving" / "app.py").read_text()
    routes = set(re.findall(r'@app\.get\("(.+?)"', source))
    box = served(DEPLOYED)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert box[probe]["httpGet"]["path"] in routes
    monitor = one(render(merged(DEPLOYED, {"serviceMonitor": {"enabled": True}})), "ServiceMonitor")
    assert monitor["spec"]["endpoints"][0]["path"] in routes


def test_every_mount_has_its_volume_and_the_cache_is_where_models_are_kept() -> None:
    signed = merged(
        DEPLOYED, {"serving": {"certificate": {"secretName": "signing"}}, "caBundle": {"configMapName": "ca"}}
    )
    for _, spec in pods(render(signed)):
        volumes = {volume["name"] for volume in spec["volumes"]}
        (box,) = spec["containers"]
        assert {mount["name"] for mount in box["volumeMounts"]} == volumes
    env = {row["name"]: row.get("value") for row in served(signed)["env"]}
    assert env["XDG_CACHE_HOME"] == "/cache"


def test_new_addresses_start_new_pods() -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = one(render(values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/env"])

    moved = merged(DEPLOYED, {"mlflow": {"trackingUri": "http://other.mlflow.svc:5000"}})
    assert checksum(DEPLOYED) == checksum(DEPLOYED) != checksum(moved)


def test_a_pod_ends_after_its_last_answer() -> None:
    spec = one(render(merged(DEPLOYED, {"serving": {"deadlineSeconds": 300}})), "Deployment")["spec"][
        "template"
    ]["spec"]
    assert spec["terminationGracePeriodSeconds"] >= 300 + 5


def test_one_pod_has_no_budget_and_scaled_pods_no_number() -> None:
    assert not [item for item in render(DEPLOYED) if item["kind"] == "PodDisruptionBudget"]
    scaled = render(merged(DEPLOYED, {"serving": {"autoscaling": {"enabled": True}}}))
    assert one(scaled, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    deployment = one(scaled, "Deployment")
    assert "replicas" not in deployment["spec"]
    assert (
        one(scaled, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
        == deployment["metadata"]["name"]
    )


@pytest.mark.parametrize("mode", ["Knative", "Standard"])
def test_a_promotion_renders_what_the_chart_renders(mode: str, tmp_path: Path) -> None:
    objects = render(merged(OWNED, {"serving": {"inferenceService": {"deploymentMode": mode}}}))
    file = tmp_path / "serving.yaml"
    file.write_text(one(objects, "ConfigMap", "faces-serving")["data"]["serving.yaml"])
    promoted = inference_service(CHAMPION, "s3://faces/3", read_serving(file))
    charted = one(objects, "InferenceService")

    def by_name(manifest: dict[str, Any]) -> dict[str, Any]:
        for box in manifest["spec"]["predictor"]["containers"]:
            box["env"] = {row["name"]: row["value"] for row in box["env"]}
            box["resources"] = yaml.safe_load(str(box["resources"]).replace("'1'", "1"))
        return dict(manifest["spec"])

    assert promoted["metadata"]["name"] == charted["metadata"]["name"]
    assert promoted["metadata"]["namespace"] == charted["metadata"]["namespace"] == "team"
    own = {key: value for key, value in promoted["metadata"]["annotations"].items() if key != "visavis/model"}
    assert own == charted["metadata"]["annotations"]
    assert by_name(promoted) == by_name(charted)


def test_without_an_address_the_promotion_owns_the_service() -> None:
    objects = render({"serving": {"mode": "inferenceservice"}})
    assert not [item for item in objects if item["kind"] == "InferenceService"]
    assert one(objects, "ConfigMap", "faces-serving")


@pytest.mark.parametrize("mode", ["Knative", "Standard"])
def test_a_strict_namespace_takes_what_a_promotion_applies(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "serving.yaml"
    file.write_text(f"mode: {mode}\n")
    manifest = inference_service(
        CHAMPION, "s3://faces/3", read_serving(file), canary=CANARY, canary_place="s3://faces/4"
    )
    assert validate(manifest)
    found = list(pods([manifest]))
    assert len(found) == (2 if mode == "Standard" else 1)
    for _, spec in found:
        assert [*violations(spec), *house_rules(spec)] == []
        assert spec["containers"][0]["name"] == CONTAINER


def test_kserve_s_account_says_where_the_store_is() -> None:
    store = {"endpointUrl": "http://s3.store.svc:9000", "secretName": "visavis-s3", "region": "eu-central-1"}
    account = one(render(merged(OWNED, {"objectStore": store})), "ServiceAccount", "faces-serving")
    assert account["metadata"]["annotations"] == {
        "serving.kserve.io/s3-endpoint": "s3.store.svc:9000",
        "serving.kserve.io/s3-usehttps": "0",
        "serving.kserve.io/s3-region": "eu-central-1",
    }
    assert account["secrets"] == [{"name": "visavis-s3"}]
