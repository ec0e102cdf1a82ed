"""One stage by itself: what it needs, and how its process ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from visavis.errors import VisavisError
from visavis.launch import stages
from visavis.launch.jobs import JobFailed
from visavis.launch.local import RunResult
from visavis.launch.stages import STAGES, Stage, needed_for
from visavis.recipes import recipe_named
from visavis.steps.contracts import RunContext
from visavis.training.engine import RESUME_ME

TOY = """
import json, os, signal, sys, time, types
module = types.ModuleType("visavis.steps.tune_mllm")
def tune_mllm(recipe, context, inputs, output, stage):
    run_dir = json.loads(context)["run_dir"]
    notes = os.path.join(run_dir, "manifests", "tune_mllm_" + stage)
    with open(notes + ".ranks", "a") as stream:
        stream.write(os.environ.get("RANK", "alone") + "\\n")
    if stage == "reconstruct":
        open(notes + ".json", "w").write(str(sorted(inputs)) + ": " + open(inputs["tokens"]).read())
    elif stage == "inpaint":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        open(notes + ".waits", "w").write("")
        time.sleep(60)
    else:
        raise ValueError("broken")
module.tune_mllm = tune_mllm
sys.modules[module.__name__] = module
"""


@pytest.fixture
def context(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "sitecustomize.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "toy"), str(repository / "src")]))
    manifests = tmp_path / "run" / "manifests"
    manifests.mkdir(parents=True)
    for step in ("build_conversations", "encode_images", "tune_mllm_reconstruct", "tune_mllm_inpaint"):
        (manifests / f"{step}.json").write_text(f"that of {step}")
    return RunContext(store=str(tmp_path / "store"), run_dir=str(tmp_path / "run"), run_name="run")


def test_a_stage_needs_what_it_reads_and_nothing_else() -> None:
    names = {name: [stage.step for stage in needed_for(name)] for name in STAGES}
    assert names["encode"] == ["encode_images"]
    assert names["detokenizer"] == ["encode_images", "tune_detokenizer"]
    assert names["inpaint"] == ["encode_images", "tune_mllm_reconstruct", "tune_mllm_inpaint"]
    assert names["rounds"][-2:] == ["tune_mllm_pair", "tune_rounds"]
    assert set(names["adapt"]) == {stage.step for stage in STAGES.values()}
    with pytest.raises(VisavisError, match="stage 'pairs' does not exist"):
        needed_for("pairs")


def test_a_stage_runs_in_a_process_of_its_own(context: RunContext) -> None:
    recipe, manifests = recipe_named("smoke"), Path(context.run_dir) / "manifests"
    stages._run(STAGES["reconstruct"], recipe, context, Path(context.run_dir), 1)
    told = (manifests / "tune_mllm_reconstruct.json").read_text()
    assert told == "['conversations', 'tokens']: that of encode_images"
    with pytest.raises(JobFailed, match="tune_mllm_pair ended with 1"):
        stages._run(STAGES["pair"], recipe, context, Path(context.run_dir), 1)
    assert "ValueError: broken" in (Path(context.run_dir) / "stages.log").read_text()


@pytest.mark.parametrize(("name", "ends"), [("encode", True), ("reconstruct", False)])
def test_the_run_of_a_stage_is_closed_whatever_becomes_of_it(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, name: str, ends: bool
) -> None:
    def run(stage: Stage, *_: object) -> None:
        if stage.step != "encode_images":
            raise JobFailed("it ended with 1")

    run_dir, closed = Path(context.run_dir), []
    (run_dir / "timings").mkdir()
    monkeypatch.setattr(stages, "run_local", lambda *_, **__: RunResult(run_dir, "", ""))
    monkeypatch.setattr(stages, "context_for", lambda *_, **__: context)
    monkeypatch.setattr(stages, "_run", run)
    monkeypatch.setattr(stages, "close_run", lambda recipe, told, succeeded: closed.append((told, succeeded)))
    with (
        contextlib.nullcontext() if ends else pytest.raises(VisavisError, match="failed outside of its steps")
    ):
        stages.train_stage(recipe_named("smoke"), name, runs=run_dir.parent)
    assert closed == [(context.model_dump_json(), ends)]


def test_several_processes_are_started_by_torchrun(context: RunContext) -> None:
    stages._run(STAGES["reconstruct"], recipe_named("smoke"), context, Path(context.run_dir), 2)
    ranks = (Path(context.run_dir) / "manifests" / "tune_mllm_reconstruct.ranks").read_text().split()
    assert sorted(ranks) == ["0", "1"]


def test_sigterm_reaches_the_stage_and_its_answer_comes_back(context: RunContext) -> None:
    waits = Path(context.run_dir) / "manifests" / "tune_mllm_inpaint.waits"

    def preempt() -> None:
        while not waits.exists():
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=preempt, daemon=True).start()
    with pytest.raises(SystemExit) as caught:
        stages._run(STAGES["inpaint"], recipe_named("smoke"), context, Path(context.run_dir), 1)
    assert caught.value.code == RESUME_ME
