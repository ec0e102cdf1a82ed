"""Local runs: what they leave behind, what is reused, and what a failure says."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from visavis.errors import VisavisError
from visavis.files import read_json, write_json
from visavis.launch import local
from visavis.launch.clips import with_clips
from visavis.recipes import Recipe, edit
from visavis.tracking import client_for

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    for path in (str(repository), str(HERE)):
        monkeypatch.syspath_prepend(path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])))
    monkeypatch.delenv("TOY", raising=False)
    pipeline = importlib.import_module("toy_pipeline").toy
    monkeypatch.setattr(local, "pipeline_named", lambda name: pipeline)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    return edit(Recipe(name="toy", pack="storybook"), {"clips.source": str(tmp_path / "clips")})


def run(recipe: Recipe, runs: Path) -> tuple[local.RunResult, str]:
    out = io.StringIO()
    return local.run_local(recipe, runs=runs, console=Console(file=out, width=120)), out.getvalue()


def states(run_dir: Path) -> dict[str, str]:
    return {row["step"]: row["status"] for row in read_json(run_dir / "timings.json")["steps"]}


def test_a_run_leaves_its_files_and_its_mlflow_runs(recipe: Recipe, runs: Path) -> None:
    result, shown = run(recipe, runs)
    latest = runs / "latest"
    assert latest.resolve() == result.run_dir
    assert read_json(latest / "funnel.json") == {
        "steps": [
            {"step": "first", "in": 3, "kept": 2, "dropped": {"blurred": 1}},
            {"step": "second", "in": 2, "kept": 2, "dropped": {}},
        ],
        "holds": True,
        "clips": [],
    }
    assert states(latest) == {"first": "ran", "second": "ran"}
    assert read_json(latest / "status.json")["status"] == "succeeded"
    assert "first: ran in" in shown
    assert "kept 2 of 3" in shown
    assert not (latest / "tmp").exists()
    client = client_for(result.tracking_uri)
    parent = client.get_run(result.parent_run_id)
    assert (parent.info.status, parent.data.params["pack"]) == ("FINISHED", "storybook")
    assert parent.data.tags["recipe.hash"] == recipe.digest()
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{result.parent_run_id}'"
    )
    assert {child.info.run_name for child in children} == {"first", "second"}

    again, _ = run(recipe, runs)
    assert states(again.run_dir) == {"first": "reused", "second": "reused"}
    children = client.search_runs([parent.info.experiment_id], "tags.reused = 'true'")
    assert {child.info.run_name for child in children} == {"first (reused)", "second (reused)"}
    assert all(child.data.tags["reused.from"] for child in children)


def test_what_a_killed_run_left_open_in_mlflow_is_ended_by_the_next_one(recipe: Recipe, runs: Path) -> None:
    first, _ = run(recipe, runs)
    client = client_for(first.tracking_uri)
    experiment = client.get_run(first.parent_run_id).info.experiment_id
    parent, other = (client.create_run(experiment).info.run_id for _ in range(2))
    below = {"mlflow.parentRunId": parent}
    open_step, whole_step = (client.create_run(experiment, tags=below).info.run_id for _ in range(2))
    client.set_terminated(whole_step)
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    write_json(runs / "running.json", {"run_id": parent, "pid": dead.pid})
    run(recipe, runs)
    found = {run_id: client.get_run(run_id).info.status for run_id in (parent, open_step, whole_step, other)}
    assert found == {parent: "KILLED", open_step: "KILLED", whole_step: "FINISHED", other: "RUNNING"}
    assert client.get_run(first.parent_run_id).info.status == "FINISHED"


def test_a_failed_step_is_named_with_its_fix(
    recipe: Recipe, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = edit(recipe, {"seed": 1})
    monkeypatch.setenv("TOY", "fail")
    with pytest.raises(VisavisError, match="step second: no face was found") as caught:
        run(other, runs)
    assert caught.value.fix == "give clips with faces"
    latest = (runs / "latest").resolve()
    assert states(latest) == {"first": "ran", "second": "failed"}
    assert read_json(latest / "status.json")["status"] == "failed"

    monkeypatch.delenv("TOY")
    assert states(run(other, runs)[0].run_dir) == {"first": "reused", "second": "ran"}


def test_a_killed_step_is_named(recipe: Recipe, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "die")
    with pytest.raises(VisavisError, match="step second was killed"):
        run(edit(recipe, {"seed": 2}), runs)


def test_a_tracker_out_of_reach_costs_the_curves_and_not_the_run(
    recipe: Recipe, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result, _ = run(edit(recipe, {"seed": 3}), runs)
    assert result.parent_run_id == ""
    assert states(result.run_dir) == {"first": "ran", "second": "ran"}


def test_a_full_disk_is_told_before_anything_is_written(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearly_full(path: Any) -> Any:
        return type("Usage", (), {"free": 1 << 20})

    monkeypatch.setattr(local.shutil, "disk_usage", nearly_full)
    with pytest.raises(VisavisError, match="are free for"):
        run(recipe, tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_disk_that_fills_up_is_named_and_the_run_goes_on_later(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    monkeypatch.setenv("TOY", "full")
    with pytest.raises(VisavisError, match=r"step second: the disk is full: .*items\.txt") as caught:
        run(recipe, runs)
    assert "free some space" in caught.value.fix
    assert not list((runs / "store" / "second").glob("*/manifest.json"))
    monkeypatch.delenv("TOY")
    assert states(run(recipe, runs)[0].run_dir) == {"first": "reused", "second": "ran"}


def test_a_folder_without_clips_is_refused_before_a_run_begins(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "clips" / "a.mp4").rename(tmp_path / "clips" / "notes.txt")
    with pytest.raises(VisavisError, match="holds no clips"):
        run(recipe, tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"clips.source": "nowhere"}, "not a folder"), ({"clips.source": ""}, "render_count is 0")],
)
def test_a_recipe_without_clips_is_refused(
    recipe: Recipe, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(VisavisError, match=words):
        with_clips(edit(recipe, changes), tmp_path, Console(file=io.StringIO()))


def test_clips_are_rendered_once(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = edit(recipe, {"clips.source": "", "clips.render_count": 10})
    console = Console(file=io.StringIO())
    first = with_clips(asked, tmp_path / "made", console)
    assert (Path(first.clips.source) / "clips.jsonl").is_file()
    monkeypatch.setitem(sys.modules, "av", None)  # nothing is encoded again
    assert with_clips(asked, tmp_path / "made", console) == first


def test_a_run_may_begin_in_the_middle_and_do_a_step_anew(recipe: Recipe, runs: Path) -> None:
    first, _ = run(recipe, runs)
    out = io.StringIO()
    given = {"second": first.run_dir / "manifests" / "second.json"}
    begun = local.run_local(recipe, runs=runs, console=Console(file=out), given=given)
    assert states(begun.run_dir) == {"second": "reused"}
    anew = local.run_local(recipe, runs=runs, console=Console(file=out), anew=["second"])
    assert states(anew.run_dir) == {"first": "reused", "second": "ran"}
