"""KServe's InferenceService: what is rendered is what KServe's own classes read, and it is really applied by HTTP."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from visavis.cli import app
from visavis.errors import VisavisError
from visavis.registry.change import State, state_of
from visavis.registry.inference_service import (
    ServingConfig,
    apply_manifest,
    inference_service,
    manifest_of,
    read_serving,
    write_manifest,
)
from visavis.registry.promotion import Office
from visavis.registry.versions import Version
from visavis.tracking import client_for

CHAMPION = Version("visavis", "3", "models:/visavis/3", ("champion",), {"weights.sha256": "abc"})
NEWER = Version(
    "visavis", "4", "models:/visavis/4", ("canary",), {"weights.sha256": "def", "canary.percent": "20"}
)
OLD, NEW = "s3://bucket/3", "s3://bucket/4"


def environment(predictor: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["value"] for row in predictor["containers"][0]["env"]}


def read_by_kserve(manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns what is left of a manifest after KServe's own classes have read it."""
    from types import SimpleNamespace

    import kserve
    from kubernetes.client import ApiClient

    api = ApiClient()
    import kubernetes.client.models

    for name in dir(kserve):
        if name.startswith("V1") and not hasattr(kubernetes.client.models, name):
            setattr(kubernetes.client.models, name, getattr(kserve, name))
    read = api.deserialize(SimpleNamespace(data=json.dumps(manifest)), "V1beta1InferenceService")
    return dict(api.sanitize_for_serialization(read))


@pytest.mark.parametrize("mode", ["Knative", "Standard"])
@pytest.mark.parametrize("canary", [None, NEWER], ids=["alone", "with canary"])
def test_nothing_of_it_is_unknown_to_kserve(mode: str, canary: Version | None) -> None:
    config = ServingConfig(mode=mode, service_account="reader", env={"LOG": "info"})
    manifest = inference_service(CHAMPION, OLD, config, canary=canary, canary_place=NEW)
    assert read_by_kserve(manifest) == manifest


def test_the_champion_serves_its_own_weights_under_its_own_hash() -> None:
    manifest = inference_service(CHAMPION, OLD, ServingConfig(service_account="reader"))
    predictor = manifest["spec"]["predictor"]
    assert environment(predictor) == {"STORAGE_URI": OLD, "VISAVIS_WEIGHTS_SHA256": "abc"}
    assert predictor["serviceAccountName"] == "reader"
    assert predictor["containers"][0]["args"] == ["--model_name=visavis", "--model_version=3"]
    annotations = manifest["metadata"]["annotations"]
    assert annotations["visavis/champion"] == "3" and "visavis/canary" not in annotations


def test_a_canary_is_a_share_of_the_new_revision_on_knative() -> None:
    manifest = inference_service(CHAMPION, OLD, ServingConfig(), canary=NEWER, canary_place=NEW)
    predictor = manifest["spec"]["predictor"]
    assert predictor["canaryTrafficPercent"] == 20 and environment(predictor)["STORAGE_URI"] == NEW
    assert "canary" not in manifest["spec"]


def test_a_canary_is_a_predictor_of_its_own_in_standard_mode() -> None:
    config = ServingConfig(mode="Standard")
    manifest = inference_service(CHAMPION, OLD, config, canary=NEWER, canary_place=NEW)
    assert environment(manifest["spec"]["predictor"])["STORAGE_URI"] == OLD
    (canary,) = manifest["spec"]["canary"]
    assert canary["trafficPercent"] == 20 and canary["predictor"]["name"] == "canary-4"
    assert environment(canary["predictor"]) == {"STORAGE_URI": NEW, "VISAVIS_WEIGHTS_SHA256": "def"}
    assert manifest["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"


def test_settings_are_read_from_yaml_and_mistakes_are_named(tmp_path: Path) -> None:
    file = tmp_path / "serving.yaml"
    file.write_text("mode: Standard\nnamespace: faces\n")
    assert read_serving(file).namespace == "faces"
    for text, words in {"mode: Raw": "mode is 'Raw'", "modus: 1": "modus", "[": "is no YAML"}.items():
        file.write_text(text)
        with pytest.raises(VisavisError, match=words):
            read_serving(file)


@pytest.mark.parametrize(
    ("place", "words"),
    [("/mlruns/model", "on this machine"), ("mlflow-artifacts:/model", "behind MLflow's proxy")],
    ids=["local", "proxy"],
)
def test_weights_that_a_cluster_cannot_read_are_refused(
    place: str, words: str, uri: str, name: str, tmp_path: Path
) -> None:
    client = client_for(uri)
    client.create_registered_model(name)
    client.create_model_version(name, place)
    client.set_registered_model_alias(name, "champion", "1")
    with pytest.raises(VisavisError, match=words) as caught:
        manifest_of(state_of(client, name), ServingConfig(), tracking_uri=uri)
    assert "s3://" in caught.value.fix


def test_a_promotion_writes_the_manifest(
    versions: Callable[..., None], uri: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("visavis.cli.registry.console", Console(width=200, highlight=False))
    versions(2, **{"weights.sha256": "abc"})

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--name", name])
        assert result.exit_code == 0, result.output
        return result.stdout

    file, settings = tmp_path / "visavis.yaml", tmp_path / "serving.yaml"
    settings.write_text("mode: Standard\n")
    serving = ["--manifest", str(file), "--serving", str(settings)]
    for number in ("1", "2"):
        call("approve", number, "--note", "looks right")
    assert "is the champion" in call("promote", "1", *serving)
    call("canary", "start", "2", "--percent", "5", *serving)
    spec = yaml.safe_load(file.read_text())["spec"]
    assert spec["canary"][0]["trafficPercent"] == 5
    listed = call("models", "--history")
    assert "canary (5 %)" in listed and "looks right" in listed and "canary start 2 5 %" in listed
    call("canary", "abort", *serving)
    assert "canary" not in yaml.safe_load(file.read_text())["spec"]
    refused = CliRunner().invoke(app, ["promote", "2", "--serving", str(settings), "--name", name])
    assert refused.exit_code and "--serving is given alone" in refused.stderr


def test_a_version_that_a_cluster_cannot_read_gets_no_alias(
    versions: Callable[..., None], uri: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    versions(1)
    client, file = client_for(uri), tmp_path / "visavis.yaml"
    client.create_model_version(name, "/mlruns/model", tags={"gate": "passed"})

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, "--name", name])

    for number in ("1", "2"):
        assert not call("approve", number).exit_code
    assert not call("promote", "1").exit_code
    for verb in (("canary", "start", "2"), ("promote", "2")):
        refused = call(*verb, "--manifest", str(file))
        assert refused.exit_code == 2 and "on this machine" in refused.stderr
    aliases = client.get_registered_model(name).aliases
    assert {alias: str(number) for alias, number in aliases.items()} == {"champion": "1"}
    assert not file.exists()


@dataclass
class Cluster:
    """What stands for a cluster: it knows the InferenceService, and keeps what is applied."""

    kubeconfig: Path
    applied: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    refuse: bool = False
    knows_kserve: bool = True


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    here = Cluster(tmp_path / "kubeconfig")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            group = {"groupVersion": "serving.kserve.io/v1beta1", "version": "v1beta1"}
            known = here.knows_kserve
            groups = [{"name": "serving.kserve.io", "versions": [group], "preferredVersion": group}]
            resource = {
                "name": "inferenceservices",
                "kind": "InferenceService",
                "namespaced": True,
                "verbs": ["get", "patch"],
            }
            answers = {
                "/version": {"major": "1", "minor": "33"},
                "/api": {"versions": ["v1"]},
                "/api/v1": {"groupVersion": "v1", "resources": []},
                "/apis": {"groups": groups if known else []},
                "/apis/serving.kserve.io/v1beta1": {
                    "groupVersion": group["groupVersion"],
                    "resources": [resource] if known else [],
                },
            }
            kinds = {"/api": "APIVersions", "/apis": "APIGroupList"}
            path = self.path.split("?")[0]
            self.answer(200, {"kind": kinds.get(path, "APIResourceList"), **answers.get(path, {})})

        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            here.applied.append((self.path, self.headers["Content-Type"], body))
            if here.refuse:
                self.answer(403, {"message": "cannot patch inferenceservices"})
            else:
                self.answer(200, body)

        def answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    here.kubeconfig.write_text(yaml.safe_dump(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(here.kubeconfig))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the client keeps credentials there
    yield here
    server.shutdown()
    server.server_close()


MANIFEST = inference_service(CHAMPION, OLD, ServingConfig(namespace="faces"))


def test_it_is_applied_by_server_side_apply(cluster: Cluster) -> None:
    apply_manifest(MANIFEST)
    ((path, kind, body),) = cluster.applied
    assert path.startswith("/apis/serving.kserve.io/v1beta1/namespaces/faces/inferenceservices/visavis?")
    assert "fieldManager=visavis" in path and "force=True" in path.replace("force=true", "force=True")
    assert kind == "application/apply-patch+yaml" and body == MANIFEST


def test_what_a_cluster_says_against_it_is_told(cluster: Cluster) -> None:
    cluster.refuse = True
    with pytest.raises(VisavisError, match=r"refused InferenceService faces/visavis: 403.*cannot patch"):
        apply_manifest(MANIFEST)


def test_a_cluster_without_kserve_is_told_from_others(cluster: Cluster) -> None:
    cluster.knows_kserve = False
    with pytest.raises(VisavisError, match="the cluster has no serving"):
        apply_manifest(MANIFEST)


def test_no_cluster_is_an_error_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "nothing")
    )
    with pytest.raises(VisavisError, match="no cluster is configured") as caught:
        apply_manifest(MANIFEST)
    assert "--manifest" in caught.value.fix


def test_promotion_and_cluster_go_together(
    cluster: Cluster, versions: Callable[..., None], uri: str, name: str
) -> None:
    versions(1)

    def deliver(after: State) -> None:
        apply_manifest(manifest_of(after, ServingConfig(), tracking_uri=uri))

    office = Office(uri, name, "Olivia", deliver)
    office.approve("1")
    cluster.refuse = True
    with pytest.raises(VisavisError, match="refused"):
        office.promote("1")
    cluster.refuse = False
    assert not office.promote("1").made
    assert len(cluster.applied) == 2 and cluster.applied[0] == cluster.applied[1]


def test_a_manifest_is_written_whole(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path / "visavis.yaml")
    assert yaml.safe_load((tmp_path / "visavis.yaml").read_text()) == MANIFEST
