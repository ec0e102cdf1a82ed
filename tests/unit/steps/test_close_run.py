"""Closing a run: what it leaves in its folder and in MLflow, also when it did not get far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from visavis import s3
from visavis.evaluation.scorecard import REQUIRED
from visavis.files import read_json, write_atomic, write_json
from visavis.recipes import Recipe
from visavis.steps.close_run import close_run
from visavis.steps.contracts import Manifest, RunContext
from visavis.steps.framework import StepJob, StepResult, run_step
from visavis.steps.store import CURVES_SUFFIX
from visavis.tracking import client_for, start_parent

RECIPE = Recipe(name="toy", pack="storybook").model_dump_json()


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> tuple[MlflowClient, str]:
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    return client_for(uri), uri


@pytest.fixture
def run(tracker: tuple[MlflowClient, str], tmp_path: Path) -> RunContext:
    client, uri = tracker
    parent = start_parent(client, "visavis", "toy", {}, (tmp_path / "artifacts").as_uri())
    return RunContext(
        store=str(tmp_path / "store"),
        run_dir=str(tmp_path / "run"),
        tracking_uri=uri,
        parent_run_id=parent.info.run_id,
        image="sha256:abc",
    )


def done(run: RunContext, step: str, metrics: dict[str, float] | None = None, status: str = "ran") -> Path:
    """Leaves the notes of a finished step; returns the folder of its result."""
    folder = Path(run.store) / step / f"key-{step}"
    folder.mkdir(parents=True)
    counts: dict[str, Any] = {"in": 2, "kept": 2, "dropped": {}}
    key = f"key-{step}"
    manifest = Manifest(step=step, key=key, uri=str(folder), counts=counts, files={}, metrics=metrics or {})
    write_atomic(Path(run.run_dir) / "manifests" / f"{step}.json", manifest.model_dump_json())
    number = len(list(Path(run.run_dir).glob("timings/*.json")))
    timing = {
        "step": step,
        "key": key,
        "status": status,
        "started": f"{number}",
        "seconds": 1.0,
        "peak_rss_mb": 9.0,
    }
    write_json(Path(run.run_dir) / "timings" / f"{step}.json", timing)
    return folder


def files_of(client: MlflowClient, run: RunContext) -> set[str]:
    return {file.path for file in client.list_artifacts(run.parent_run_id)}


def test_a_whole_run_is_summed_up(run: RunContext, tracker: tuple[MlflowClient, str]) -> None:
    client, folder = tracker[0], Path(run.run_dir)
    done(run, "curate_clips")
    done(run, "build_conversations")
    tuned = done(run, "tune_rounds", status="reused")
    points = [(10, 2.0), (20, 9.0), (20, 1.0)]  # the second attempt repeats step 20
    lines = [json.dumps({"step": step, "values": {"loss": loss, "lr": 0.1}}) for step, loss in points]
    write_atomic(tuned.with_suffix(CURVES_SUFFIX), "\n".join([*lines, '{"step": 30, "val']))
    evaluated = done(run, "evaluate_model")
    card: dict[str, Any] = {"counts": {"rounds": 240}, "seed": 0}
    for path in REQUIRED:
        section, name = path.split(".")
        card.setdefault(section, {})[name] = {"value": 0.8, "ci95": [0.7, 0.9], "n": 240}
    write_json(evaluated / "scorecard.json", card)
    for name in ("chat", "stages", "reconstruction"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(evaluated / f"{name}.png")
    rule = {"metric": "rounds.right_person_accuracy", "passed": False, "reason": "0.8 is below 0.9"}
    judged = done(run, "gate_model", {"passed": 0.0})
    write_json(judged / "decision.json", {"passed": False, "champion": "2", "rules": [rule]})
    rival = done(run, "evaluate_champion")
    difference = {"rounds.right_person_accuracy": {"value": -0.1, "ci95": [-0.2, -0.01], "n": 240}}
    write_json(rival / "differences.json", difference)
    done(run, "register_model", {"version": 3.0})
    promotion = {"promoted": False, "reason": "gate_failed", "words": "the gate refused version 3"}
    write_json(done(run, "promote_model", {"promoted": 0.0}) / "promotion.json", promotion)
    close_run(RECIPE, run.model_dump_json(), True)
    page = (folder / "report.html").read_text()
    for words in ("Losses", "Funnel", "Time", "People through the stages", "Three rounds of talk"):
        assert f">{words}</h2>" in page, words
    for words in ("The gate refused the model", "the gate refused version 3", "Since champion 2", ">worse<"):
        assert words in page, words
    pictures = {"chat.png", "stages.png", "reconstruction.png", "curves.png", "scorecard.png"}
    assert files_of(client, run) == pictures | {
        "funnel.json",
        "timings.json",
        "scorecard.json",
        "report.html",
        "decision.json",
        "promotion.json",
    }
    parent = client.get_run(run.parent_run_id)
    assert parent.info.status == "FINISHED"
    wanted = {"gate": "failed", "model.version": "3", "image.digest": "sha256:abc"}
    assert wanted.items() <= parent.data.tags.items() and len(parent.data.tags["data.manifest"]) == 64
    assert parent.data.metrics["rounds.right_person_accuracy"] == 0.8
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("The gate refused the model. the gate refused version 3\n\n| figure |")
    assert "\n| right person accuracy | 80.0 % | 70.0 to 90.0 % | 240 |\n" in note
    inputs = {item.tags[0].value: item.dataset.digest for item in parent.inputs.dataset_inputs}
    assert inputs == {"clips": "key-curate_clips", "conversations": "key-build_conversations"}


def test_a_run_that_failed_at_once_is_closed_too(run: RunContext, tracker: tuple[MlflowClient, str]) -> None:
    close_run(RECIPE, run.model_dump_json(), False)
    assert read_json(Path(run.run_dir) / "status.json")["status"] == "failed"
    assert files_of(tracker[0], run) == {"funnel.json", "timings.json"}
    parent = tracker[0].get_run(run.parent_run_id)
    assert parent.info.status == "FAILED" and parent.inputs.dataset_inputs == []


def test_a_run_in_a_bucket_is_closed_there_and_mlflow_gets_what_it_missed(
    run: RunContext,
    tracker: tuple[MlflowClient, str],
    bucket: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, uri = tracker
    root = f"s3://{bucket.name}/team"
    away = run.model_copy(
        update={
            "store": f"{root}/store",
            "run_dir": f"{root}/runs/one",
            "tracking_uri": "http://127.0.0.1:9",
            "system_metrics": False,
        }
    )
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def pod(name: str) -> None:
        monkeypatch.setenv(s3.SCRATCH, str(tmp_path / name))

    def body(job: StepJob) -> StepResult:
        for step in range(3):
            job.tracker.log_metrics({"loss": 3.0 - step}, step=step)
        job.tracker.log_text("words", "notes/a.txt")
        (job.work / "w.txt").write_text("w")
        return StepResult({"in": 2, "kept": 1, "dropped": {"blurred": 1}})

    pod("training")
    made = run_step("tune_rounds", body, "{}", away.model_dump_json(), {}, tmp_path / "out.json", ())
    waiting = [name for name in s3.listed(away.run_dir) if name.startswith("tracking/")]
    assert any(name.endswith(".jsonl") for name in waiting) and any(
        name.endswith("a.txt") for name in waiting
    )
    pod("closing")
    back = away.model_copy(update={"tracking_uri": uri})
    close_run(RECIPE, back.model_dump_json(), True)
    left = s3.listed(away.run_dir)
    assert not [name for name in left if name.startswith("tracking/")]
    assert {"funnel.json", "timings.json", "status.json", "curves.png"} <= set(left)
    runs = client.search_runs(
        [client.get_run(run.parent_run_id).info.experiment_id],
        f"tags.mlflow.parentRunId = '{run.parent_run_id}'",
    )
    assert [(child.info.run_name, child.info.status) for child in runs] == [("tune_rounds", "FINISHED")]
    child = runs[0].info.run_id
    assert [point.value for point in client.get_metric_history(child, "loss")] == [3.0, 2.0, 1.0]
    assert [file.path for file in client.list_artifacts(child, "notes")] == ["notes/a.txt"]
    assert client.get_run(run.parent_run_id).info.status == "FINISHED"
    record = s3.read(f"{root}/store/tune_rounds/{made.key}.run.json")
    assert record is not None and json.loads(record[0]) == {"run_id": child}, "a later run points to it"
    pod("closing again")
    close_run(RECIPE, back.model_dump_json(), True)
    assert [point.value for point in client.get_metric_history(child, "loss")] == [3.0, 2.0, 1.0]
