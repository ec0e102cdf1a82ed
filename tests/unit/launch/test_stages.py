"""One stage by itself: what it needs, and how its process ends."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from visavis.errors import VisavisError
from visavis.launch import stages
from visavis.launch.stages import STAGES, needed_for
from visavis.recipes import recipe_named
from visavis.steps.contracts import RunContext
from visavis.training.engine import RESUME_ME

TOY = """
import os, signal, sys, time, types
module = types.ModuleType("visavis.steps.tune_mllm")
def tune_mllm(recipe, context, inputs, output, stage):
    with open(output + ".ranks", "a") as stream:
        stream.write(os.environ.get("RANK", "alone") + "\\n")
    if stage == "reconstruct":
        open(output, "w").write("done")
    elif stage == "inpaint":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        open(output + ".waits", "w").write("")
        time.sleep(60)
    else:
        raise ValueError("broken")
module.tune_mllm = tune_mllm
sys.modules[module.__name__] = module
"""


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "sitecustomize.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "toy"))
    (tmp_path / "run" / "manifests").mkdir(parents=True)
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
    assert stages._done(STAGES["reconstruct"], recipe, context, 1)
    assert (manifests / "tune_mllm_reconstruct.json").read_text() == "done"
    assert not stages._done(STAGES["pair"], recipe, context, 1)
    assert "ValueError: broken" in (Path(context.run_dir) / "stages.log").read_text()


def test_several_processes_are_started_by_torchrun(context: RunContext) -> None:
    assert stages._done(STAGES["reconstruct"], recipe_named("smoke"), context, 2)
    ranks = (Path(context.run_dir) / "manifests" / "tune_mllm_reconstruct.json.ranks").read_text().split()
    assert sorted(ranks) == ["0", "1"]


def test_sigterm_reaches_the_stage_and_its_answer_comes_back(context: RunContext) -> None:
    waits = Path(context.run_dir) / "manifests" / "tune_mllm_inpaint.json.waits"

    def preempt() -> None:
        while not waits.exists():
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=preempt, daemon=True).start()
    with pytest.raises(SystemExit) as caught:
        stages._done(STAGES["inpaint"], recipe_named("smoke"), context, 1)
    assert caught.value.code == RESUME_ME
