"""The verbs of runs, through the real kfp.Client, over HTTP, to a scripted server of the published API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_server import KfpServer
from kube_server import KubeServer, ended, pod
from trainer_server import Frame, TrainerServer

from visavis.errors import VisavisError
from visavis.launch.cluster import runs
from visavis.launch.cluster.connection import connect
from visavis.launch.cluster.target import read_target
from visavis.launch.trainer_api import RUN_LABEL
from visavis.launch.trainjob import run_label
from visavis.recipes import Recipe
from visavis.steps.contracts import RunContext
from visavis.tracking import client_for

Call = Callable[..., Any]
SMOKE = ("submit", "--recipe", "smoke", "--source", "s3://clips/all")


def test_a_submitted_run_is_told_all_that_its_steps_need(
    call: Call, server: KfpServer, mlflow_uri: str
) -> None:
    said = call(*SMOKE, "--name", "first", "curate.min_face=0.2").stdout
    ((run_id, run),) = server.runs.items()
    assert run_id in said and f"{server.endpoint}/#/runs/details/{run_id}" in said
    assert run["display_name"] == "first"
    assert server.experiments[run["experiment_id"]]["namespace"] == "team-a"
    recipe = Recipe.model_validate_json(run["runtime_config"]["parameters"]["recipe"])
    assert (recipe.clips.source, recipe.curate.min_face) == ("s3://clips/all", 0.2)
    context = RunContext.model_validate(server.told(run_id))
    assert context.store == "s3://results/faces/store"
    assert context.run_dir == f"s3://results/faces/runs/{run_id}"
    assert context.recipe_hash == recipe.digest()
    assert "visavis-train@sha256:bbb" in context.image
    assert not context.relayed
    parent = client_for(mlflow_uri).get_run(context.parent_run_id)
    assert parent.info.status == "RUNNING" and parent.data.tags["kfp.run_id"] == run_id
    assert parent.info.run_id in said


def test_a_pipeline_is_put_there_once_and_is_named_by_its_content(call: Call, server: KfpServer) -> None:
    call(*SMOKE)
    call(*SMOKE)
    (version,) = server.versions.values()
    assert (
        version["name"].startswith("visavis-train-") and len(server.pipelines) == len(server.experiments) == 1
    )
    call(*SMOKE, "--pipeline", "curate")
    assert sorted(one["name"] for one in server.pipelines.values()) == ["visavis-curate", "visavis-train"]
    images = {
        executor["container"]["image"].partition("@")[0]
        for executor in version["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    }
    assert images == {"registry.example.org/visavis-tools", "registry.example.org/visavis-train"}


def test_two_who_put_a_pipeline_there_at_once_share_it(call: Call, server: KfpServer) -> None:
    call(*SMOKE)
    # The list that the second one saw was older than the first one's upload.
    server.fail("/versions?", 200, b'{"pipeline_versions": []}')
    call(*SMOKE)
    assert len(server.versions) == 1 and len(server.runs) == 2


def test_every_request_names_the_namespace(call: Call, server: KfpServer) -> None:
    call(*SMOKE, "--namespace", "team-b")
    assert {one["namespace"] for one in server.experiments.values()} == {"team-b"}
    assert {one["namespace"] for one in server.pipelines.values()} == {"team-b"}
    call("status")
    lists = [
        line
        for line in server.requests
        if line.startswith(("GET /apis/v2beta1/experiments?", "GET /apis/v2beta1/pipelines?"))
    ]
    assert lists and all("namespace=team-" in line for line in lists)
    assert all("namespace=kubeflow" not in line for line in server.requests)


def test_a_run_is_followed_to_its_end(call: Call, server: KfpServer, submitted: str) -> None:
    scenes = [
        ("PENDING", {}),
        ("RUNNING", {"list-clips": "RUNNING"}),
        ("RUNNING", {"list-clips": "SUCCEEDED", "curate-part": ["SUCCEEDED", "RUNNING"]}),
        ("SUCCEEDED", {"list-clips": "SUCCEEDED", "curate-part": ["SUCCEEDED", "SUCCEEDED"]}),
    ]
    server.on_get = lambda run: server.play(submitted, *scenes.pop(0)) if scenes else None
    said = call("status", submitted, "--wait", "--poll", "0.1").stdout
    for words in (
        "list-clips: running",
        "list-clips: succeeded",
        "curate-part: running 1 of 2",
        "2 of 2",
        "SUCCEEDED",
    ):
        assert words in said


def test_a_run_that_fails_while_it_is_followed_ends_with_1(
    call: Call, server: KfpServer, submitted: str
) -> None:
    server.play(submitted, "FAILED", {"list-clips": "FAILED"})
    said = call("status", "latest", "--wait", "--poll", "0.1", code=1).stdout
    assert f"visavis logs {submitted} list-clips" in said


def test_a_server_that_is_away_for_a_while_does_not_end_the_waiting(
    server: KfpServer, call: Call, submitted: str
) -> None:
    kubeflow = connect(read_target())
    server.play(submitted, "SUCCEEDED")
    server.fail(f"GET /apis/v2beta1/runs/{submitted}", 503, b"<html>no upstream</html>", times=3)
    run = runs.follow(kubeflow, submitted, lambda *_: None, poll_s=0.05)
    assert run.state == "SUCCEEDED"
    server.fail(f"GET /apis/v2beta1/runs/{submitted}", 503, times=20)
    with pytest.raises(VisavisError, match="the run itself goes on") as caught:
        runs.follow(kubeflow, submitted, lambda *_: None, poll_s=0.02, patience_s=0.1)
    assert f"visavis status {submitted}" in caught.value.fix


def test_status_shows_tasks_in_the_order_of_the_pipeline(
    call: Call, server: KfpServer, submitted: str, kube: KubeServer
) -> None:
    server.play(
        submitted,
        "FAILED",
        {
            "list-clips": "SUCCEEDED",
            "curate-part": ["SUCCEEDED", "FAILED", "SUCCEEDED"],
            "close-run": "SUCCEEDED",
        },
    )
    node = "visavis-train-x7k2p.root.exit-handler-1.for-loop-1.iteration-iterations(1:1).curate-part.executor"
    kube.pods = [pod(submitted, node, "pod-1", ended("OOMKilled"))]
    said = call("status", submitted[:8]).stdout
    rows = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "succeeded" in rows["list-clips"] and "0:02:00" in rows["list-clips"]
    assert "failed" in rows["curate-part"] and "3 of 3" in rows["curate-part"]
    assert "waiting" in rows["promote-model"]
    assert (
        said.index("list-clips")
        < said.index("curate-part ")
        < said.index("build-conversations")
        < said.index("promote-model")
    )
    assert "driver" not in said and "executor" not in said
    assert "curate-part: OOMKilled" in said


def test_the_runs_are_listed_newest_first(call: Call, server: KfpServer) -> None:
    for number in range(3):
        call(*SMOKE, "--name", f"run-{number}")
    said = call("status", "--count", "2").stdout
    assert said.index("run-2") < said.index("run-1") and "run-0" not in said


def test_runs_are_found_by_name_and_by_the_beginning_of_their_id(
    call: Call, submitted: str, server: KfpServer
) -> None:
    name = server.runs[submitted]["display_name"]
    for run in (submitted, submitted[:6], name, "latest"):
        assert submitted in call("status", run).stdout
    assert "has the name" in call("status", submitted[:3], code=2).stderr
    assert "no run of namespace team-a" in call("status", "nothing-like-it", code=2).stderr
    unknown = "00000000-0000-4000-8000-000000000000"
    assert "404" in call("status", unknown, code=2).stderr


def test_only_a_failed_run_is_tried_again(call: Call, server: KfpServer, submitted: str) -> None:
    assert "is PENDING" in call("retry", submitted, code=2).stderr
    server.play(submitted, "SUCCEEDED")
    refused = call("retry", submitted, code=2).stderr
    assert "is SUCCEEDED" in refused and "visavis submit" in refused
    assert not any(":retry" in line for line in server.requests)
    server.play(submitted, "FAILED", {"list-clips": "FAILED"})
    assert "goes on" in call("retry", submitted).stdout
    assert server.runs[submitted]["state"] == "RUNNING"


def test_a_run_is_ended_with_its_mlflow_run(
    call: Call, server: KfpServer, submitted: str, mlflow_uri: str
) -> None:
    assert "is being ended" in call("cancel", submitted).stdout
    assert server.runs[submitted]["state"] == "CANCELING"
    parent = server.told(submitted)["parent_run_id"]
    assert client_for(mlflow_uri).get_run(parent).info.status == "KILLED"
    server.play(submitted, "FAILED")
    assert "is FAILED already" in call("cancel", submitted, code=2).stderr


def test_the_training_jobs_of_a_run_that_is_ended_are_deleted(
    call: Call, server: KfpServer, submitted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunContext.model_validate(server.told(submitted))
    assert run.cluster.training.run_as == "trainjob" and run.cluster.needs.bucket == "s3://results/faces"
    trainer = TrainerServer(space="team-a", scripts=[[Frame()], [Frame()]])
    config = trainer.kubeconfig(tmp_path / "trainer")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    for name, label in (("its", run_label(run)), ("another", "x")):
        trainer.put({"metadata": {"name": name, "labels": {RUN_LABEL: label}}, "spec": {}})
    try:
        call("cancel", submitted)
    finally:
        trainer.stop()
    assert list(trainer.jobs) == ["another"]


def test_logs_are_those_of_every_pod_of_a_step(
    call: Call, server: KfpServer, submitted: str, kube: KubeServer
) -> None:
    server.play(submitted, "RUNNING", {"list-clips": "SUCCEEDED", "curate-part": ["RUNNING", "FAILED"]})
    loop = "t-x.root.exit-handler-1.for-loop-1.iteration-iterations({n}:{n}).curate-part.executor"
    kube.pods = [
        pod(submitted, "t-x.root.exit-handler-1.list-clips.executor", "pod-list"),
        pod(submitted, "t-x.root.exit-handler-1.list-clips-driver", "pod-driver"),
        pod(submitted, loop.format(n=0), "pod-0"),
        pod(submitted, loop.format(n=1), "pod-1", ended("OOMKilled")),
    ]
    kube.logs = {"pod-0": "one\ntwo\nthree\n", "pod-1": "killed\n"}
    for step in ("curate-part", "curate_part", "Curate a part"):
        said = call("logs", submitted, step, "--tail", "2").stdout
        assert "two\nthree\n" in said and "one\n" not in said
        assert "OOMKilled" in said and "killed" in said
        assert "pod-list" not in said and "pod-driver" not in said
    assert "killed" in call("logs", submitted, "curate-part", "--follow").stdout
    assert "its tasks: preflight, list-clips" in call("logs", submitted, "no-such", code=2).stderr
    assert "has no pod" in call("logs", submitted, "promote-model", code=2).stderr
    kube.refused = "/pods"
    assert "pods/log" in call("logs", submitted, "curate-part", code=2).stderr


def test_logs_without_a_kubeconfig_say_where_else_to_look(
    call: Call, server: KfpServer, submitted: str
) -> None:
    refused = call("logs", submitted, "list-clips", code=2).stderr
    assert "no cluster is configured" in refused and "the run's page" in refused


def test_a_host_that_nobody_listens_on(call: Call) -> None:
    refused = call(*SMOKE, "--endpoint", "http://127.0.0.1:9", code=2).stderr
    assert "http://127.0.0.1:9 does not answer" in refused


def test_signing_in(call: Call, server: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.token = "the-token-of-this-test"
    assert "401" in (refused := call("status", code=2).stderr) and "KF_PIPELINES_TOKEN" in refused
    monkeypatch.setenv("KF_PIPELINES_TOKEN", server.token)
    call("status")
    monkeypatch.delenv("KF_PIPELINES_TOKEN")
    token = tmp_path / "token"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    assert "does not exist" in call("status", code=2).stderr
    token.write_text(server.token)
    call("status")


def test_a_cookie_of_a_login_page_is_sent(
    call: Call, server: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_COOKIE", "oauth2_proxy_kubeflow=abcdefgh")
    call("status")
    assert all(headers.get("Cookie") == "oauth2_proxy_kubeflow=abcdefgh" for headers in server.headers)


def test_a_login_page_is_not_taken_for_kubeflow(call: Call, server: KfpServer) -> None:
    server.fail("/healthz", 200, b"<html>Log in to Your Account</html>")
    refused = call("status", code=2).stderr
    assert "not as Kubeflow Pipelines does" in refused and "login page" in refused


def test_a_namespace_of_others_is_refused(call: Call, server: KfpServer, submitted: str) -> None:
    refused = call("status", "--namespace", "team-c", code=2).stderr
    assert "403" in refused and "team-c" in refused and "not authorized" in refused
    elsewhere = call("cancel", submitted, "--namespace", "team-b", code=2).stderr
    assert "lies in namespace team-a, not in team-b" in elsewhere
    assert server.runs[submitted]["state"] == "PENDING"


def test_nothing_is_begun_when_the_server_refuses(call: Call, server: KfpServer, mlflow_uri: str) -> None:
    server.fail("POST /apis/v2beta1/runs", 400, json.dumps({"message": "quota exceeded\nstack"}).encode())
    refused = call(*SMOKE, "--name", "refused", code=2).stderr
    assert "quota exceeded" in refused and "stack" not in refused
    (parent,) = client_for(mlflow_uri).search_runs(
        [client_for(mlflow_uri).get_experiment_by_name("visavis").experiment_id],
        "attributes.run_name = 'refused'",
    )
    assert parent.info.status == "FAILED"


def test_mlflow_out_of_reach_from_here_does_not_stop_a_run(call: Call, server: KfpServer) -> None:
    call(*SMOKE, "--mlflow", "http://127.0.0.1:9")
    (run_id,) = server.runs
    assert server.told(run_id)["parent_run_id"] == ""
    assert server.told(run_id)["tracking_uri"] == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("clips.source=/my/clips",), "a place on this machine"),
        ((), "clips.source is empty"),
        (
            ("clips.source=s3://clips", "monitor.webhook=https://bot:hunter22@hooks.example.org"),
            "user or password",
        ),
    ],
)
def test_what_a_cluster_must_not_be_told(
    call: Call, server: KfpServer, arguments: tuple[str, ...], words: str
) -> None:
    refused = call("submit", "--recipe", "smoke", *arguments, code=2).stderr
    assert words in refused and "hunter22" not in refused
    assert not server.runs and not server.pipelines


def test_no_secret_leaves_this_machine(
    call: Call, server: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-of-the-test")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "passw0rd-of-the-test")
    refused = call(*SMOKE, "monitor.webhook=https://hooks.example.org/s3cr3t-of-the-test", code=2)
    assert "AWS_SECRET_ACCESS_KEY" in refused.stderr and "s3cr3t" not in refused.output
    said = call(*SMOKE).output
    everything = said + "".join(server.bodies) + "".join(server.requests)
    assert "s3cr3t-of" not in everything and "passw0rd-of" not in everything
    # What a server says back may hold what it was sent.
    server.fail("GET /apis/v2beta1/runs", 500, b'{"message": "bad header passw0rd-of-the-test"}')
    assert "bad header <MLFLOW_TRACKING_PASSWORD>" in call("status", code=2).stderr


def test_ctrl_c_leaves_the_run_running(
    call: Call, server: KfpServer, submitted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("visavis.launch.cluster.runs.follow", stop)
    said = call("status", submitted, "--wait", code=130).stdout
    assert f"visavis status {submitted} --wait" in said


def test_many_runs_are_read_page_by_page(call: Call, server: KfpServer, submitted: str) -> None:
    for number in range(230):
        server.runs[f"{number:08d}"] = {
            **server.runs[submitted],
            "run_id": f"{number:08d}",
            "display_name": "x",
        }
    server.runs["00000000"]["display_name"] = "the-last"
    assert "00000000" in call("status", "the-last").stdout


def test_a_cluster_to_play_with_may_take_tags(call: Call, server: KfpServer, cluster_file: Path) -> None:
    values = yaml.safe_load(cluster_file.read_text())
    values["images"] = {}
    cluster_file.write_text(yaml.safe_dump(values))
    assert "has no digest" in call(*SMOKE, code=2).stderr
    call(*SMOKE, "--allow-tags")
    assert len(server.runs) == 1


def test_a_certificate_of_ones_own(server: KfpServer, tmp_path: Path) -> None:
    own = server.behind_tls(tmp_path)
    file = tmp_path / "own.yaml"
    # In a namespace that the client takes for none at all, it would ask five times, with pauses.
    values = {"namespace": "kubeflow", "kfp": {"endpoint": server.endpoint}}
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(VisavisError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        connect(read_target(file))
    assert "kfp.ca_file" in caught.value.fix
    values["kfp"]["ca_file"] = str(own)
    file.write_text(yaml.safe_dump(values))
    assert connect(read_target(file)).health()["multi_user"] is True
