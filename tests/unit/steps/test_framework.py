"""Steps: reuse, kill and resume, ledgers that add up, keys that follow content."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from visavis.data.ledger import Ledger
from visavis.errors import VisavisError
from visavis.files import read_json
from visavis.steps.framework import Manifest, RunContext, StepJob, StepResult, run_step
from visavis.steps.timings import read_timings

ROOT = Path(__file__).parents[3]
STEPS, COMPONENTS = ROOT / "src" / "visavis" / "steps", ROOT / "components"
RECIPE = json.dumps({"seed": 1, "curate": {"limit": 4}, "chat": {"port": 1}})


@pytest.fixture
def context(tmp_path: Path) -> str:
    return RunContext(store=str(tmp_path / "store"), run_dir=str(tmp_path / "run")).model_dump_json()


def four_items(job: StepJob) -> StepResult:
    ledger = Ledger(job.name)
    for index in range(4):
        ledger.keep(f"item{index}") if index else ledger.drop("item0", "too_far_apart")
    (job.work / "pairs.txt").write_text("three pairs")
    return StepResult(ledger.close(job.work / "ledger.jsonl", 4), {"pairs": 3})


def copy_of_input(job: StepJob) -> StepResult:
    (job.work / "copy.txt").write_bytes((job.folder("pairs") / "pairs.txt").read_bytes())
    return StepResult({"in": 3, "kept": 3, "dropped": {}})


def run(
    body, context: str, tmp_path: Path, name="curate", recipe=RECIPE, inputs=None, section=("seed", "curate")
):
    return run_step(name, body, recipe, context, inputs or {}, tmp_path / f"{name}.json", section)


def status(tmp_path: Path, name: str = "curate") -> str:
    return str(read_json(tmp_path / "run" / "timings" / f"{name}.json")["status"])


def test_a_finished_step_is_reused(context: str, tmp_path: Path) -> None:
    first = run(four_items, context, tmp_path)
    assert status(tmp_path) == "ran"
    second = run(four_items, context, tmp_path)
    assert status(tmp_path) == "reused"
    assert first == second == Manifest.read(tmp_path / "curate.json")
    assert first.counts == {"in": 4, "kept": 3, "dropped": {"too_far_apart": 1}}
    assert set(first.files) == {"pairs.txt", "ledger.jsonl"}
    assert read_timings(tmp_path / "run")[0]["key"] == first.key


def test_the_key_follows_what_the_step_reads_and_nothing_else(context: str, tmp_path: Path) -> None:
    first = run(four_items, context, tmp_path)
    other_port = RECIPE.replace('"port": 1', '"port": 2')
    assert run(four_items, context, tmp_path, recipe=other_port).key == first.key
    other_limit = RECIPE.replace('"limit": 4', '"limit": 5')
    assert run(four_items, context, tmp_path, recipe=other_limit).key != first.key


def test_equal_inputs_are_equal_work_whatever_made_them(context: str, tmp_path: Path) -> None:
    def downstream() -> Manifest:
        inputs = {"pairs": tmp_path / "curate.json"}
        return run(copy_of_input, context, tmp_path, name="describe", inputs=inputs, section=("seed",))

    first, copied = run(four_items, context, tmp_path), downstream()
    again = run(four_items, context, tmp_path, recipe=RECIPE.replace('"limit": 4', '"limit": 5'))
    assert again.key != first.key
    assert downstream() == copied
    assert status(tmp_path, "describe") == "reused"


def test_a_result_that_lost_a_file_is_made_again(context: str, tmp_path: Path) -> None:
    first = run(four_items, context, tmp_path)
    (first.folder / "pairs.txt").unlink()
    assert run(four_items, context, tmp_path) == first
    assert status(tmp_path) == "ran"


def test_counts_must_add_up(context: str, tmp_path: Path) -> None:
    def loses_one(job: StepJob) -> StepResult:
        return StepResult({"in": 4, "kept": 2, "dropped": {"blurred": 1}})

    with pytest.raises(VisavisError, match=r"in = kept \+ sum\(dropped\)"):
        run(loses_one, context, tmp_path)
    assert not (tmp_path / "curate.json").exists()
    assert status(tmp_path) == "failed"
    assert "ledger row" in read_json(tmp_path / "run" / "failures" / "curate.json")["fix"]


def test_counts_must_be_those_of_the_ledger(context: str, tmp_path: Path) -> None:
    def rounds_up(job: StepJob) -> StepResult:
        four_items(job)
        return StepResult({"in": 5, "kept": 5, "dropped": {}})

    with pytest.raises(VisavisError, match="the ledger has 4 rows"):
        run(rounds_up, context, tmp_path)


def test_a_failure_keeps_the_work_and_the_next_attempt_finds_it(context: str, tmp_path: Path) -> None:
    def fails_once(job: StepJob) -> StepResult:
        mark = job.scratch / "half"
        if not mark.exists():
            mark.write_text("done so far")
            raise RuntimeError("disk full")
        return four_items(job)

    with pytest.raises(RuntimeError):
        run(fails_once, context, tmp_path)
    assert read_json(tmp_path / "run" / "failures" / "curate.json")["message"] == "RuntimeError: disk full"
    manifest = run(fails_once, context, tmp_path)
    assert not (manifest.folder / "_scratch").exists()
    assert not (tmp_path / "run" / "failures" / "curate.json").exists()


def test_a_missing_input_is_named(context: str, tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match=r"nowhere\.json does not exist"):
        run(copy_of_input, context, tmp_path, inputs={"pairs": tmp_path / "nowhere.json"})


def test_an_unknown_section_is_named(context: str, tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match=r"'curate\.speed' is missing"):
        run(four_items, context, tmp_path, section=("curate.speed",))


def test_two_runs_do_the_same_work_once(tmp_path: Path) -> None:
    calls: list[int] = []
    store = str(tmp_path / "store")
    folders = [tmp_path / "one", tmp_path / "two"]
    contexts = [RunContext(store=store, run_dir=str(folder)).model_dump_json() for folder in folders]

    def slow(job: StepJob) -> StepResult:
        calls.append(1)
        time.sleep(0.3)
        return four_items(job)

    threads = [
        threading.Thread(target=run, args=(slow, *pair)) for pair in zip(contexts, folders, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert Manifest.read(folders[0] / "curate.json") == Manifest.read(folders[1] / "curate.json")


INTERRUPTED = """
    import json, sys, time
    from pathlib import Path
    from visavis.steps.framework import RunContext, StepResult, run_step

    def body(job):
        state = job.scratch / "state.json"
        total, done = json.loads(state.read_text()) if state.exists() else (0, 0)
        while done < 20:
            total, done = total * 3 + done, done + 1
            temporary = state.with_suffix(".tmp")
            temporary.write_text(json.dumps([total, done]))
            temporary.replace(state)
            if done > 10:
                time.sleep(float(sys.argv[2]))
        (job.work / "weights.txt").write_text(str(total))
        return StepResult({"in": 20, "kept": 20, "dropped": {}})

    root = Path(sys.argv[1])
    context = RunContext(store=str(root / "store"), run_dir=str(root / "run")).model_dump_json()
    run_step("tune", body, "{}", context, {}, root / "out.json", ())
"""


def test_a_killed_step_goes_on_from_where_it_was(tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text(textwrap.dedent(INTERRUPTED))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(root: Path, pause: float) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script), str(root), str(pause)], env=env)

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed, 30.0)
    deadline = time.monotonic() + 60
    while not (states := list(killed.glob("store/tune/*.partial/_scratch/state.json"))) or (
        json.loads(states[0].read_text())[1] < 11
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "out.json").exists()
    assert read_json(killed / "run" / "timings" / "tune.json")["status"] == "running"

    assert start(killed, 0.0).wait() == 0
    assert start(whole, 0.0).wait() == 0
    resumed, straight = Manifest.read(killed / "out.json"), Manifest.read(whole / "out.json")
    assert resumed.files == straight.files
    assert resumed.key == straight.key
    assert not list(killed.glob("store/tune/*.partial"))


def test_what_lies_outside_the_run_is_part_of_the_key(context: str, tmp_path: Path) -> None:
    def made_of(extra: str) -> Manifest:
        return run_step(
            "curate", four_items, RECIPE, context, {}, tmp_path / "c.json", ("seed",), lambda: extra
        )

    assert made_of("clips of today").key == made_of("clips of today").key != made_of("clips of tomorrow").key


def test_a_step_may_refuse_to_be_reused(context: str, tmp_path: Path) -> None:
    for _ in range(2):
        run_step("curate", four_items, RECIPE, context, {}, tmp_path / "c.json", ("seed",), reuse=False)
        assert status(tmp_path) == "ran"


def test_a_step_that_is_reused_loads_no_heavy_library() -> None:
    """Each step is a process: what its module imports is paid for even if there is nothing to do."""
    names = sorted(path.stem for path in STEPS.glob("*.py") if (COMPONENTS / path.stem).is_dir())
    assert len(names) > 15
    heavy = ("torch", "transformers", "diffusers", "mlflow", "numpy", "scipy", "pandas", "cv2")
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(f'visavis.steps.{{name}}')\n"
        "for name in ('training', 'closing', 'preflight'): importlib.import_module(f'visavis.launch.{name}')\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
