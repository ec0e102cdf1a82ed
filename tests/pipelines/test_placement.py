"""Where the tasks of the pipelines run: by the profiles of the cluster file, the same for tasks and training jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig

from visavis.cluster import Cluster, Placement, Profile, read_cluster
from visavis.errors import VisavisError

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "pipelines" / "cluster.yaml"
JOBS = {"tune_detokenizer", "tune_mllm", "tune_rounds", "adapt_detokenizer"}

#          cores  memory    GPUs  hours  queue      shm
EXPECTED = {
    "adapt_detokenizer": ("96", "1024Gi", "8", 73, "", ""),
    "build_conversations": ("2", "4Gi", "0", 6, "", ""),
    "close_run": ("2", "4Gi", "0", 6, "", ""),
    "curate_clips": ("2", "4Gi", "0", 6, "", ""),
    "curate_part": ("8", "32Gi", "0", 24, "", ""),
    "describe_clips": ("12", "128Gi", "1", 24, "visavis", "16Gi"),
    "encode_images": ("12", "128Gi", "1", 24, "visavis", "16Gi"),
    "evaluate_champion": ("12", "128Gi", "1", 24, "visavis", "16Gi"),
    "evaluate_model": ("12", "128Gi", "1", 24, "visavis", "16Gi"),
    "evaluate_version": ("12", "128Gi", "1", 24, "visavis", "16Gi"),
    "gate_model": ("2", "4Gi", "0", 6, "", ""),
    "list_clips": ("2", "4Gi", "0", 6, "", ""),
    "make_full_body": ("12", "128Gi", "1", 24, "visavis", "16Gi"),
    "monitor_champion": ("12", "128Gi", "1", 24, "visavis", "16Gi"),
    "preflight": ("2", "4Gi", "0", 6, "", ""),
    "promote_model": ("2", "4Gi", "0", 6, "", ""),
    "promote_version": ("2", "4Gi", "0", 6, "", ""),
    "register_model": ("2", "4Gi", "0", 6, "", ""),
    "score_arm": ("12", "128Gi", "1", 24, "visavis", "16Gi"),
    "segment_faces": ("12", "128Gi", "1", 24, "visavis", "16Gi"),
    "tune_detokenizer": ("96", "1024Gi", "8", 73, "", ""),
    "tune_mllm": ("96", "1024Gi", "8", 73, "", ""),
    "tune_rounds": ("96", "1024Gi", "8", 73, "", ""),
}
"""What `pipelines/cluster.yaml` makes of each step; of one that waits for a job, GPUs are handed on to that."""


def executors(*documents: dict[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Step to its container and what is said of its pod."""
    spec, platform = documents
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    found = {}
    for name, component in spec["components"].items():
        label = component.get("executorLabel", "")
        container = spec["deploymentSpec"]["executors"].get(label, {}).get("container")
        if container:
            step = name.removeprefix("comp-").rstrip("0123456789").rstrip("-").replace("-", "_")
            found[step] = (container, pods.get(label, {}))
    return found


def compiled(name: str) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    return executors(*yaml.safe_load_all((ROOT / "pipelines" / f"{name}.yaml").read_text()))


ALL = {
    step: row
    for name in ("train", "curate", "evaluate", "promote", "monitor", "ablation")
    for step, row in compiled(name).items()
}


def test_every_step_reaches_store_and_tracker_by_the_names_of_secrets() -> None:
    for step, (_, pod) in ALL.items():
        given = {row["secretName"]: row for row in pod.get("secretAsEnv", ())}
        assert set(given) == {"visavis-s3", "kfp-mlflow-credentials"}, step
        assert all(row["optional"] for row in given.values()), step
        variables = {pair["envVar"] for row in given.values() for pair in row["keyToEnv"]}
        assert {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"} <= variables, step
        assert [row["configMapName"] for row in pod["configMapAsEnv"]] == ["visavis-env"], step


def test_a_variable_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"environment\.secrets"):
        Cluster.model_validate({"environment": {"secrets": {"s3": {"key": "not a variable"}}}})


def test_every_step_is_in_the_table() -> None:
    assert set(ALL) == set(EXPECTED)


@pytest.mark.parametrize("step", sorted(ALL))
def test_a_step_takes_what_the_table_says(step: str) -> None:
    container, pod = ALL[step]
    asked = container["resources"]
    labels = pod.get("podMetadata", {}).get("labels", {})
    mounts = pod.get("emptyDirMounts", [{}])
    took = (
        asked["resourceCpuLimit"],
        asked["resourceMemoryLimit"],
        asked.get("accelerator", {}).get("resourceCount", "0"),
        int(pod["activeDeadlineSeconds"]) // 3600,
        labels.get("kueue.x-k8s.io/queue-name", ""),
        mounts[0].get("sizeLimit", ""),
    )
    assert took == EXPECTED[step]
    assert asked["resourceCpuRequest"] == asked["resourceCpuLimit"]
    assert asked["resourceMemoryRequest"] == asked["resourceMemoryLimit"]
    json_format.ParseDict(pod, KubernetesExecutorConfig())


def test_every_task_is_tried_again_with_growing_waits() -> None:
    for name in ("train", "promote"):
        spec = next(yaml.safe_load_all((ROOT / "pipelines" / f"{name}.yaml").read_text()))
        dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
        tasks = [task for dag in dags for task in dag["tasks"].values()]
        run = [task for task in tasks if "dag" not in spec["components"][task["componentRef"]["name"]]]
        policies = [
            task["retryPolicy"]
            for task in run
            if not task["componentRef"]["name"].startswith("comp-importer")
        ]
        wanted = {
            "maxRetryCount": 2,
            "backoffDuration": "60s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": "3600s",
        }
        assert policies and all(policy == wanted for policy in policies)


def test_the_waits_between_attempts_are_covered_by_the_note_of_a_failure() -> None:
    retries = read_cluster(CLUSTER).retries
    waits = sum(retries.backoff_seconds * retries.factor**number for number in range(retries.count))
    assert waits < retries.not_again_seconds < waits + 600


@pytest.mark.parametrize("step", sorted(JOBS))
def test_task_and_job_go_to_the_same_nodes(step: str) -> None:
    profile = read_cluster(CLUSTER).profile_of(step)
    assert profile is not None
    _, pod = ALL[step]
    placed = Placement.of(profile)
    assert pod["nodeSelector"]["labels"] == placed.selector
    assert tuple(pod["tolerations"]) == placed.tolerations
    resources = ALL[step][0]["resources"]
    assert placed.resources == {
        "cpu": resources["resourceCpuLimit"],
        "memory": resources["resourceMemoryLimit"],
        resources["accelerator"]["resourceType"]: resources["accelerator"]["resourceCount"],
    }


def test_a_step_that_waits_for_a_job_hands_its_gpus_on() -> None:
    spec = next(yaml.safe_load_all((ROOT / "pipelines" / "train.yaml").read_text()))
    rows = spec["components"]["comp-tune-rounds"]["taskConfigPassthroughs"]
    told = {row["field"]: row.get("applyToTask", False) for row in rows}
    assert told == {
        "RESOURCES": False,
        "KUBERNETES_TOLERATIONS": False,
        "KUBERNETES_NODE_SELECTOR": False,
        "ENV": True,
    }


def test_another_file_places_the_same_pipeline_elsewhere_and_always_alike(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    profile = "{cpu: '3', spot: true, accelerator: amd.com/gpu, accelerators: 2, shm: 1Gi}"
    file.write_text(f"profiles: {{all: {profile}}}\ndefault: all\n")
    env = {**os.environ, "VISAVIS_CLUSTER": str(file)}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    code = "import sys; from kfp.compiler import Compiler; from pipelines.train import train; "
    code += "Compiler().compile(train, sys.argv[1])"
    texts = []
    for seed in ("0", "7"):
        out = tmp_path / f"{seed}.yaml"
        command = [sys.executable, "-W", "ignore", "-c", code, str(out)]
        subprocess.run(command, env={**env, "PYTHONHASHSEED": seed}, check=True)
        texts.append(out.read_text())
    assert texts[0] == texts[1]
    documents = list(yaml.safe_load_all(texts[0]))
    container, pod = executors(*documents)["tune_rounds"]
    assert container["resources"]["accelerator"]["resourceType"] == "amd.com/gpu"
    assert pod["emptyDirMounts"][0]["mountPath"] == "/dev/shm" and "nodeSelector" not in pod
    rows = documents[0]["components"]["comp-tune-rounds"]["taskConfigPassthroughs"]
    assert all(row["applyToTask"] for row in rows)
    tasks = documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert tasks["tune-rounds"]["retryPolicy"]["maxRetryCount"] == 20


def test_the_longest_name_of_a_step_decides() -> None:
    profiles = {name: Profile(cpu=cpu) for name, cpu in (("a", "1"), ("b", "2"), ("c", "3"))}
    cluster = Cluster(profiles=profiles, default="a", steps={"tune_mllm": "b", "tune_mllm_pair": "c"})
    cpus = {
        step: profile.cpu if (profile := cluster.profile_of(step)) else ""
        for step in ("tune_mllm_inpaint", "tune_mllm_pair", "tune_mllmx")
    }
    assert cpus == {"tune_mllm_inpaint": "2", "tune_mllm_pair": "3", "tune_mllmx": "1"}
    assert Cluster().profile_of("tune_mllm") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("profiles: {a: {gpus: 1}}", r"profiles\.a\.gpus"),
        ("profiles: {a: {memory: lots}}", r"profiles\.a\.memory is 'lots'"),
        ("profiles: {a: {accelerators: 8}}", "go together"),
        ("profiles: {a: {tolerations: [{operator: Equal}]}}", "needs a key"),
        ("default: b", "names profile 'b'"),
        ("training: {run_as: job}", r"training\.run_as is 'job'"),
        ("retries: {count: -1}", r"retries\.count"),
        ("[", "is no YAML"),
        ("- a", "the file is"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(VisavisError, match=words):
        read_cluster(file)
    with pytest.raises(VisavisError, match="does not exist"):
        read_cluster(tmp_path / "nothing.yaml")
