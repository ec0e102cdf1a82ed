"""A step that trains, by each of its launchers: the same entry point, the same result under the same key."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trainer_server import Frame, PodNow, TrainerServer

from visavis.cluster import Cluster, Profile, Retries, Training
from visavis.errors import TransientError, VisavisError
from visavis.files import read_json
from visavis.launch.training import train_step
from visavis.recipes import Recipe
from visavis.steps.contracts import Manifest, RunContext
from visavis.steps.timings import read_timings

HERE = Path(__file__).parent
RECIPE = Recipe(name="toy", pack="storybook", seed=5).model_dump_json()
QUICK = {"poll_seconds": 0.01, "backoff_seconds": 0.0}
GPU = Profile(accelerator="nvidia.com/gpu", accelerators=1, usd_per_hour=3.0)
ON_CLUSTER = Cluster(
    training=Training(run_as="trainjob", **QUICK),
    retries=Retries(not_again_seconds=60),
    profiles={"gpu": GPU},
    default="gpu",
)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    folder = HERE / "toy_training"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(repository / "src")]))
    monkeypatch.syspath_prepend(str(folder))
    steps = importlib.import_module("toy_training_steps")
    monkeypatch.setitem(sys.modules, "visavis.steps.tune_toy", steps)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainerServer]:
    here = TrainerServer(act=lambda arguments: subprocess.run([sys.executable, *arguments]))
    config = here.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the client keeps credentials there
    yield here
    here.stop()


class Trained:
    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.run = RunContext(
            store=str(folder / "store"), run_dir=str(folder / "run"), run_name="run", cluster=cluster
        )
        self.output, self.page = folder / "out" / "manifest.json", folder / "out" / "job.html"
        self.output.parent.mkdir()

    def train(self, stage: str = "good", task: dict[str, Any] | None = None) -> Manifest:
        context = self.run.model_dump_json()
        return train_step("tune_toy", RECIPE, context, {}, self.output, self.page, task, stage=stage)

    def status(self) -> list[str]:
        return [row["status"] for row in read_timings(Path(self.run.run_dir))]


def test_in_its_own_process(tmp_path: Path) -> None:
    trained = Trained(tmp_path, Cluster())
    manifest = trained.train()
    assert (manifest.folder / "weights.txt").read_text() == "5" and trained.status() == ["ran"]
    assert Manifest.read(trained.output) == manifest and "on this machine" in trained.page.read_text()
    assert trained.train().key == manifest.key and trained.status() == ["reused"]


def test_in_several_processes_that_really_work_together(tmp_path: Path) -> None:
    trained = Trained(tmp_path, Cluster(training=Training(processes=2)))
    manifest = trained.train()
    assert (manifest.folder / "weights.txt").read_text() == "8" and trained.status() == ["ran"]
    assert Manifest.read(trained.output) == manifest


def test_as_a_job_whose_arguments_do_the_same(tmp_path: Path, server: TrainerServer) -> None:
    (tmp_path / "alone").mkdir()
    alone = Trained(tmp_path / "alone", Cluster())
    trained = Trained(tmp_path, ON_CLUSTER)
    server.scripts = [[Frame(), Frame("Complete", pods=(PodNow("Succeeded", 0),))]]
    manifest = trained.train()
    assert manifest.key == alone.train().key
    assert (manifest.folder / "weights.txt").read_text() == "5" and trained.status() == ["ran"]
    assert Manifest.read(trained.output) == manifest
    assert "<td>1.00</td><td>3.00</td>" in trained.page.read_text()
    trained.train()
    assert len(server.made) == 1 and trained.status() == ["reused"]


def test_a_mistake_of_the_user_comes_back_from_the_job_and_is_not_tried_again(
    tmp_path: Path, server: TrainerServer
) -> None:
    trained = Trained(tmp_path, ON_CLUSTER)
    server.scripts = [[Frame("Failed", pods=(PodNow("Failed", 1),))]]
    for _ in range(2):
        with pytest.raises(VisavisError, match="no chat is short enough") as caught:
            trained.train("refused")
        assert caught.value.fix == "raise max_length" and caught.value.exit_code == 2
    assert len(server.made) == 1
    note = Path(trained.run.run_dir) / "failures" / "tune_toy_refused.json"
    note.write_text(note.read_text().replace(f'"at": {read_json(note)["at"]}', '"at": 1'))
    server.scripts = [[Frame("Failed", pods=(PodNow("Failed", 1),))]]
    with pytest.raises(VisavisError):
        trained.train("refused")
    assert len(server.made) == 2


def test_what_nobody_foresaw_may_be_tried_again(tmp_path: Path, server: TrainerServer) -> None:
    trained = Trained(tmp_path, ON_CLUSTER)
    server.scripts = [[Frame("Failed", pods=(PodNow("Failed", 1),))] for _ in range(2)]
    for _ in range(2):
        with pytest.raises(TransientError, match="ValueError: shapes differ") as caught:
            trained.train("broken")
        assert caught.value.exit_code == os.EX_TEMPFAIL
    assert len(server.made) == 2


def test_a_job_without_a_result_is_told(tmp_path: Path, server: TrainerServer) -> None:
    trained = Trained(tmp_path, ON_CLUSTER)
    server.act, server.scripts = None, [[Frame("Complete", pods=())]]
    with pytest.raises(TransientError, match="is complete, but its result") as caught:
        trained.train()
    assert "the same place" in caught.value.fix and server.jobs == {}


def test_a_job_needs_a_profile(tmp_path: Path) -> None:
    trained = Trained(tmp_path, Cluster(training=Training(run_as="trainjob")))
    with pytest.raises(VisavisError, match="has no profile"):
        trained.train()


def test_what_the_task_hands_on_reaches_the_job(tmp_path: Path, server: TrainerServer) -> None:
    trained = Trained(tmp_path, ON_CLUSTER)
    server.scripts = [[Frame("Complete", pods=())]]
    told = {
        "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "7"}},
        "env": [{"name": "A", "value": "b"}],
    }
    trained.train(task=told)
    trainer = server.made[0]["spec"]["trainer"]
    assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": "1", "cpu": "7"}
    assert trainer["env"] == [{"name": "A", "value": "b"}]
