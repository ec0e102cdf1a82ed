"""Results in a bucket: the same as in a folder, whole or absent, made once, whatever is killed or fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from visavis import s3
from visavis.data.ledger import Ledger
from visavis.errors import VisavisError
from visavis.recipes import Recipe
from visavis.steps.contracts import Manifest, RunContext
from visavis.steps.framework import StepJob, StepResult, run_step
from visavis.steps.store import open_store

if TYPE_CHECKING:
    from s3_server import FaultyProxy

TRAINING = Recipe(name="toy", pack="storybook").model_dump_json()
FILES = ("a.txt", "folder/b.txt", "folder/c.bin", "ledger.jsonl")


def three_files(job: StepJob) -> StepResult:
    (job.work / "a.txt").write_text("first")
    (job.work / "folder").mkdir(exist_ok=True)
    (job.work / "folder" / "b.txt").write_text("second")
    (job.work / "folder" / "c.bin").write_bytes(bytes(range(256)) * 64)
    ledger = Ledger(job.name)
    ledger.keep("item0")
    ledger.drop("item1", "blurred")
    job.tracker.log_metrics({"loss": 0.5}, step=1)
    return StepResult(ledger.close(job.work / "ledger.jsonl", 2), {"figure": 2.0})


def copies(job: StepJob) -> StepResult:
    shutil.copyfile(job.folder("before") / "folder" / "c.bin", job.work / "copy.bin")
    return StepResult({"in": 1, "kept": 1, "dropped": {}})


class Cluster:
    """Starts each step on a machine with an empty disk."""

    def __init__(self, store: str, run_dir: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.context = RunContext(store=store, run_dir=run_dir)
        self.folder, self.patch, self.pods, self.recipe = folder, monkeypatch, 0, "{}"

    def step(self, name: str, body: Any, before: str = "", reuse: bool = True) -> Manifest:
        self.pods += 1
        self.patch.setenv(s3.SCRATCH, str(self.folder / f"pod{self.pods}"))
        inputs = {"before": self.folder / f"{before}.json"} if before else {}
        context = self.context.model_dump_json()
        return run_step(
            name, body, self.recipe, context, inputs, self.folder / f"{name}.json", (), reuse=reuse
        )

    def status(self, name: str) -> str:
        found = s3.read(s3.below(self.context.run_dir, "timings", f"{name}.json"))
        assert found is not None
        return str(json.loads(found[0])["status"])


@pytest.fixture
def cluster(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    root = f"s3://{bucket.name}/team"
    return Cluster(f"{root}/store", f"{root}/runs/one", tmp_path, monkeypatch)


def keys(bucket: Any) -> set[str]:
    return {entry.key for entry in bucket.objects.all()}


def test_a_bucket_holds_what_a_folder_holds(
    cluster: Cluster, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "local"
    here = Cluster(str(local / "store"), str(local / "run"), local, monkeypatch)
    pairs = [(each.step("make", three_files), each.step("copy", copies, "make")) for each in (here, cluster)]
    for in_folder, in_bucket in zip(*pairs, strict=True):
        assert in_bucket.model_copy(update={"uri": ""}) == in_folder.model_copy(update={"uri": ""})
    made, copied = pairs[1]
    assert set(made.files) == set(FILES)
    assert {key for key in keys(bucket) if key.startswith("team/store/")} == {
        *(f"team/store/make/{made.key}/{made.digest[:16]}/{name}" for name in FILES),
        f"team/store/make/{made.key}/manifest.json",
        f"team/store/make/{made.key}.curves.jsonl",
        f"team/store/copy/{copied.key}/{copied.digest[:16]}/copy.bin",
        f"team/store/copy/{copied.key}/manifest.json",
    }
    here_run = {path.relative_to(local / "run").as_posix() for path in (local / "run").rglob("*.json")}
    assert {key.removeprefix("team/runs/one/") for key in keys(bucket) if "/runs/" in key} == here_run
    assert copied.file("copy.bin").read_bytes() == bytes(range(256)) * 64


def test_a_step_brings_what_it_reads_and_a_reused_one_nothing(cluster: Cluster) -> None:
    cluster.step("make", three_files)
    cluster.step("copy", copies, "make")
    assert (cluster.status("make"), cluster.status("copy")) == ("ran", "ran")
    again = cluster.step("copy", copies, "make")
    assert cluster.status("copy") == "reused"
    assert list((cluster.folder / "pod3").rglob("*.bin")) == []
    assert again.file("copy.bin").is_file()


def test_a_result_that_lost_a_file_is_made_again(cluster: Cluster, bucket: Any) -> None:
    first = cluster.step("make", three_files)
    gone = f"{s3.split_uri(first.uri)[1]}/folder/b.txt"
    bucket.Object(gone).delete()
    assert cluster.step("make", three_files) == first
    assert cluster.status("make") == "ran"
    assert gone in keys(bucket)


def test_a_file_that_was_changed_in_the_store_is_refused(cluster: Cluster, bucket: Any) -> None:
    made = cluster.step("make", three_files)
    bucket.Object(f"{s3.split_uri(made.uri)[1]}/folder/c.bin").put(Body=b"another")
    with pytest.raises(VisavisError, match=r"c\.bin has the sha256 .*, and its manifest says") as failed:
        cluster.step("copy", copies, "make")
    assert f"remove all below {made.uri} and run the pipeline again" in failed.value.fix
    assert cluster.status("copy") == "failed"
    note = s3.read(f"{cluster.context.run_dir}/failures/copy.json")
    assert note is not None and "manifest says" in json.loads(note[0])["message"]
    s3.remove(made.uri, s3.listed(made.uri))
    cluster.step("make", three_files)
    cluster.step("copy", copies, "make")
    assert s3.read(f"{cluster.context.run_dir}/failures/copy.json") is None, "an old failure misleads"


def test_a_name_that_leads_out_of_the_folder_is_refused(cluster: Cluster) -> None:
    made = cluster.step("make", three_files)
    hostile = made.model_copy(update={"files": {"../../../stolen": "0" * 64}})
    with pytest.raises(VisavisError, match="would lie outside"):
        _ = hostile.folder


def test_a_step_that_is_not_reused_replaces_its_result(cluster: Cluster) -> None:
    counted = iter(range(5))

    def other_each_time(job: StepJob) -> StepResult:
        (job.work / "number.txt").write_text(str(next(counted)))
        return StepResult({"in": 1, "kept": 1, "dropped": {}})

    first = cluster.step("ask", other_each_time, reuse=False)
    second = cluster.step("ask", other_each_time, reuse=False)
    assert (first.key, first.uri) != (second.key, second.uri) and first.key == second.key
    assert open_store(cluster.context.store).find("ask", second.key) == second
    assert first.file("number.txt").read_text() == "0", "another run may still read it"


def test_a_fifth_of_failing_requests_costs_nothing(
    s3_proxy: FaultyProxy, bucket: Any, cluster: Cluster
) -> None:
    from s3_server import point_boto3

    point_boto3(cluster.patch, s3_proxy.endpoint)
    s3.client.cache_clear()
    s3_proxy.fail_share(0.2, seed=3)
    made, copied = cluster.step("make", three_files), cluster.step("copy", copies, "make")
    again = cluster.step("make", three_files)
    assert s3_proxy.refused > 5
    s3_proxy.fail_share(0.0)
    assert again == made and cluster.status("make") == "reused"
    assert copied.folder.joinpath("copy.bin").read_bytes() == bytes(range(256)) * 64
    stored = {key for key in keys(bucket) if key.startswith("team/store/")}
    assert len(stored) == len(FILES) + len(["copy.bin", "curves", "manifest", "manifest"])


def learns(job: StepJob) -> StepResult:
    """Trains a line, and is killed at its second checkpoint the first time."""
    import torch

    from visavis.training.config import OptimConfig
    from visavis.training.engine import train

    class Line:
        def draw(self, step: int, rng: Any) -> list[float]:
            return [float(rng.standard_normal()) for _ in range(4)]

        def collate(self, items: list[float]) -> torch.Tensor:
            return torch.tensor(items)[:, None]

        def counts(self, batch: torch.Tensor) -> dict[str, float]:
            return {"items": float(len(batch))}

        def loss(self, model: Any, batch: torch.Tensor, totals: dict[str, float]) -> Any:
            loss = (model(batch) - 3 * batch).square().sum() / totals["items"]
            return loss, {}

    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    started_at: list[int] = []

    def watch(done: int, _: int) -> None:
        started_at.append(done)
        if done == 12 and os.environ.get("KILL"):
            raise KeyboardInterrupt

    config = OptimConfig(steps=20, warmup=0, lr=0.1, checkpoint_seconds=1e-6, log_every=1)
    train(model, Line(), config, job.scratch / "line", progress=watch, engine=job.engine)
    (job.work / "weights.txt").write_text(str([p.tolist() for p in model.parameters()]))
    job.tracker.log_metrics({"loss": 0.0}, step=started_at[0])
    return StepResult({"in": 1, "kept": 1, "dropped": {}})


def test_training_goes_on_from_its_checkpoint_on_another_machine(
    cluster: Cluster, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "recipe", TRAINING)
    monkeypatch.setenv("KILL", "1")
    with pytest.raises(KeyboardInterrupt):
        cluster.step("learn", learns)
    left = sorted(key.split("/", 4)[-1] for key in keys(bucket) if ".partial/" in key)
    assert {name.split("/")[1] for name in left} == {"step-000000010", "step-000000011"}
    assert cluster.status("learn") == "failed"
    monkeypatch.delenv("KILL")
    resumed = cluster.step("learn", learns)
    assert not [key for key in keys(bucket) if ".partial/" in key]
    here = Cluster(str(tmp_path / "s"), str(tmp_path / "r"), tmp_path / "h", monkeypatch)
    here.recipe = TRAINING
    straight = here.step("learn", learns)
    assert resumed.file("weights.txt").read_text() == straight.file("weights.txt").read_text()


SCRIPT = """
    import json, os, sys, time
    from pathlib import Path
    from visavis.steps.framework import RunContext, StepResult, run_step

    def body(job):
        for name in ("a.txt", "b.txt", "c.txt"):
            (job.work / name).write_text(name + os.environ.get("TASTE", ""))
        if gate := os.environ.get("GATE"):
            Path(gate, str(os.getpid())).touch()
            while len(list(Path(gate).iterdir())) < 2:
                time.sleep(0.05)
        return StepResult({"in": 1, "kept": 1, "dropped": {}})

    root = Path(sys.argv[1])
    context = RunContext(store=sys.argv[2] + "/store", run_dir=sys.argv[2] + "/runs/" + root.name)
    run_step("make", body, "{}", context.model_dump_json(), {}, root / "out.json", ())
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "step.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def start(script: Path, pod: Path, uri: str, **more: str) -> subprocess.Popen[bytes]:
    pod.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), s3.SCRATCH: str(pod / "scratch"), **more}
    return subprocess.Popen([sys.executable, str(script), str(pod), uri], env=env)


def test_a_step_killed_between_any_two_uploads_leaves_nothing_that_looks_whole(
    s3_proxy: FaultyProxy, bucket: Any, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3_server import point_boto3

    uri = f"s3://{bucket.name}/team"
    store = open_store(f"{uri}/store")
    for number in range(4):  # three files and their manifest
        bucket.objects.delete()
        point_boto3(monkeypatch, s3_proxy.endpoint)
        before = len(s3_proxy.requests)
        s3_proxy.hold_puts("/store/make/", after=number)
        process = start(script, tmp_path / f"pod{number}", uri)
        deadline = time.monotonic() + 60
        while not s3_proxy.holding:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        s3_proxy.release()
        assert len(s3_proxy.requests) > before
        there = {key for key in keys(bucket) if key.startswith("team/store/")}
        assert len(there) == number and not any(key.endswith("manifest.json") for key in there)
        assert list(store.results()) == []
        assert start(script, tmp_path / f"pod{number}-again", uri).wait() == 0
        made = Manifest.read(tmp_path / f"pod{number}-again" / "out.json")
        assert store.find("make", made.key) == made
        assert len([key for key in keys(bucket) if key.startswith("team/store/")]) == 4


@pytest.mark.parametrize("tastes", [("", ""), ("sweet", "sour")], ids=["equal", "different"])
def test_two_machines_that_make_one_result_at_a_time_end_with_one(
    bucket: Any, script: Path, tmp_path: Path, tastes: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, gate = f"s3://{bucket.name}/team", tmp_path / "gate"
    gate.mkdir()
    pods = [tmp_path / "one", tmp_path / "two"]
    processes = [
        start(script, pod, uri, GATE=str(gate), TASTE=taste) for pod, taste in zip(pods, tastes, strict=True)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    one, two = (Manifest.read(pod / "out.json") for pod in pods)
    assert one == two
    monkeypatch.setenv(s3.SCRATCH, str(tmp_path / "reader"))
    read = {(one.folder / name).read_text().removeprefix(name) for name in one.files}
    assert len(read) == 1 and read <= set(tastes)
    assert len([key for key in keys(bucket) if key.startswith("team/store/")]) == 4, (
        "the other one's are gone"
    )
