"""Several processes, and parts of a step, teach what one process teaches; each reads the other's checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from visavis.training.config import EngineConfig, OptimConfig
from visavis.training.engine import RESUME_ME, team
from visavis.training.engine.team import deal, deepspeed_settings

WORKER = Path(__file__).with_name("worker.py")
STEPS = 6


Result: TypeAlias = tuple[list[float], dict[str, Any]]
"""Losses of the steps, and weights."""


def command(folder: Path, processes: int, *jobs: dict[str, Any]) -> list[str]:
    """Writes jobs down; returns what runs the worker on them, under torchrun if `processes` is given."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [
        {"work": folder / str(number), "config": {"steps": STEPS}, **job} for number, job in enumerate(jobs)
    ]
    (folder / "jobs.json").write_text(json.dumps(todo, default=str))
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*(start if processes else [sys.executable]), str(WORKER), str(folder / "jobs.json")]


def launch(folder: Path, processes: int, *jobs: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    return subprocess.run(
        command(folder, processes, *jobs),
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )


def results(folder: Path, processes: int, jobs: dict[str, dict[str, Any]]) -> dict[str, Result]:
    """Returns what each of the named jobs learned."""
    done = launch(folder, processes, *jobs.values())
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(jobs, json.loads((folder / "results.json").read_text()), strict=True))


def killed_at_a_checkpoint(folder: Path) -> None:
    """Runs a stage in `folder`/0 and kills it when its first checkpoint is whole."""
    process = subprocess.Popen(command(folder, 0, {}))
    while not list((folder / "0").glob("checkpoints/step-*/complete.json")) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a stage that was asked to stop in its third step."""
    folder = tmp_path_factory.mktemp("stopped")
    assert launch(folder, 0, {"term_at": 2}).returncode == RESUME_ME
    return folder / "0"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, stopped: Path) -> dict[str, Result]:
    """What one process learns, which starts once for all of its stages."""
    folder = tmp_path_factory.mktemp("one")
    killed_at_a_checkpoint(folder / "killed")
    jobs: dict[str, dict[str, Any]] = {
        "alone": {},
        "in parts": {"engine": {"accumulate": 3}},
        "after a stop": {"work": shutil.copytree(stopped, folder / "stopped")},
        "after a kill": {"work": folder / "killed" / "0"},
    }
    return results(folder, 0, jobs)


@pytest.fixture
def alone(one: dict[str, Result]) -> Result:
    return one["alone"]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, stopped: Path) -> dict[str, Result]:
    """What two processes learn, which train one stage after the other, each in another way."""
    folder = tmp_path_factory.mktemp("together")
    other = launch(folder / "zero 1", 2, {"engine": {"zero_stage": 1}, "term_at": 2})
    assert other.returncode != 0
    jobs: dict[str, dict[str, Any]] = {
        f"zero {stage}": {"engine": {"zero_stage": stage}} for stage in range(4)
    }
    for stage in (0, 2, 3):
        engine = {"zero_stage": stage, "precision": "bf16", "activation_checkpointing": True}
        jobs[f"bf16 zero {stage}"] = {"engine": engine, "freeze": "llm.model.embed_tokens"}
    jobs["zero 2 after one process"] = {
        "engine": {"zero_stage": 2},
        "work": shutil.copytree(stopped, folder / "stopped"),
    }
    jobs["zero 3 after zero 1"] = {"engine": {"zero_stage": 3}, "work": folder / "zero 1" / "0"}
    return results(folder, 2, jobs)


def close(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return all(close(first[name], second[name]) for name in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(close, first, second))
    return bool(first == pytest.approx(second, abs=2e-5, rel=2e-5))


def test_parts_of_a_step_teach_what_the_step_teaches(one: dict[str, Result], alone: Result) -> None:
    curve, weights = one["in parts"]
    assert close(curve, alone[0])
    assert close(weights, alone[1])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_processes_teach_what_one_teaches(alone: Result, together: dict[str, Result], stage: int) -> None:
    curve, weights = together[f"zero {stage}"]
    assert close(curve, alone[0])
    assert close(weights, alone[1])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bf16_and_frozen_weights_come_out_whole(
    alone: Result, together: dict[str, Result], stage: int
) -> None:
    curve, weights = together[f"bf16 zero {stage}"]
    assert curve[0] == pytest.approx(alone[0][0], rel=0.02)
    assert curve[0] != pytest.approx(alone[0][0], rel=1e-5), "bf16 rounds"
    assert curve[-1] < 1.1 * alone[0][-1]
    assert [len(rows) for rows in weights.values()] == [len(rows) for rows in alone[1].values()]


def check_it_went_on(rest: Result, alone: Result) -> None:
    """Compares a stage that stopped after three steps with one that did not stop."""
    curve, weights = rest
    assert close(curve, alone[0][-len(curve) :])
    assert len(curve) == STEPS - 3
    assert close(weights, alone[1])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["zero 2 after one process", "zero 3 after zero 1"])
def test_several_processes_go_on_where_others_stopped(
    alone: Result, together: dict[str, Result], way: str
) -> None:
    check_it_went_on(together[way], alone)


@pytest.mark.slow
def test_one_process_goes_on_where_several_stopped(tmp_path: Path, alone: Result) -> None:
    assert launch(tmp_path, 2, {"engine": {"zero_stage": 3}, "term_at": 2}).returncode != 0
    check_it_went_on(results(tmp_path, 0, {"rest": {}})["rest"], alone)


def test_a_stage_that_is_asked_to_stop_goes_on_to_the_same_weights(
    one: dict[str, Result], alone: Result
) -> None:
    curve, weights = one["after a stop"]
    assert curve == alone[0][3:], "the step in which the signal came is finished"
    assert weights == alone[1]


def test_a_stage_that_was_killed_goes_on_to_the_same_weights(one: dict[str, Result], alone: Result) -> None:
    curve, weights = one["after a kill"]
    assert curve == alone[0][STEPS - len(curve) :]
    assert weights == alone[1]


def test_a_process_of_a_team_ends_with_its_code_and_what_it_said(tmp_path: Path) -> None:
    lines = (
        "import atexit, pathlib, threading, torch",
        "from visavis.training.engine import Preempted, ending_at_once",
        "torch.distributed.init_process_group('gloo', rank=0, world_size=1, store=torch.distributed.HashStore())",
        "atexit.register(pathlib.Path('left').touch)",
        "threading._register_atexit(pathlib.Path('ended by Python').touch)",
        "with ending_at_once():",
        "    print('said', end='')",
        "    raise Preempted(3)",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (RESUME_ME, "said")
    assert [path.name for path in tmp_path.iterdir()] == ["left"]


def test_state_is_laid_where_the_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    # Stands in for a GPU: whatever stays on the CPU shows.
    monkeypatch.setattr(team, "compute_device", lambda: torch.device("meta"))
    model = torch.nn.Linear(3, 2)
    config = OptimConfig()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    plain = team.PlainTeam(model, optimizer, config, EngineConfig())
    state = {
        f"{key}.{name}": torch.ones_like(p, device="cpu")
        for name, p in plain.names.items()
        for key in team.MOMENTS
    }
    state |= {f"{team.STEPS}.{name}": torch.tensor(4.0) for name in plain.names}
    plain.load({name: torch.ones_like(p, device="cpu") for name, p in plain.names.items()}, state)
    laid = [value for kept in optimizer.state.values() for value in kept.values()]
    assert len(laid) == 6 and {value.device.type for value in laid} == {"meta"}


def test_items_are_dealt_without_loss() -> None:
    items = list(range(11))
    dealt = [part for rank in range(2) for part in deal(items, rank, 2, 3)]
    assert sorted(item for part in dealt for item in part) == items


def test_settings_of_deepspeed_can_be_added_to() -> None:
    engine = EngineConfig(
        zero_stage=2, deepspeed={"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}
    )
    settings = deepspeed_settings(OptimConfig(clip=0.5), engine)
    assert settings["zero_optimization"] == {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    assert settings["gradient_clipping"] == 0.5
