"""Training jobs: made, adopted, made anew, watched to their end, and told of; against a cluster that plays scripts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainer_server import SPACE, Frame, PodNow, TrainerServer

from visavis.cluster import Cluster, Placement, Profile, Toleration, Training
from visavis.cluster.cost import attempts_of
from visavis.errors import TransientError, VisavisError
from visavis.files import write_json
from visavis.launch.jobs import Job, JobFailed
from visavis.launch.trainer_api import TrainerApi
from visavis.launch.trainjob import TrainJobLauncher, delete_jobs, job_name, run_label
from visavis.steps.contracts import RunContext
from visavis.training.engine import RESUME_ME

GOLDEN = Path(__file__).parent / "trainjob.yaml"
PROFILE = Profile(
    selector={"gpu": "h100"},
    tolerations=(Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),),
    cpu="96",
    memory="1024Gi",
    accelerator="nvidia.com/gpu",
    accelerators=8,
    nodes=2,
    queue="team-a",
    shm="64Gi",
    usd_per_hour=24,
    hours=2,
)
QUICK = Training(run_as="trainjob", poll_seconds=0.01, backoff_seconds=0.0, restarts=2)
RUNNING = Frame(pods=(PodNow(), PodNow()))
DONE = Frame("Complete", pods=(PodNow("Succeeded", 0), PodNow("Succeeded", 0)))


def failed(*pods: PodNow, reason: str = "") -> Frame:
    return Frame("Failed", reason, pods=pods)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainerServer]:
    here = TrainerServer()
    config = here.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the client keeps credentials there
    yield here
    here.stop()


@pytest.fixture
def run(tmp_path: Path) -> RunContext:
    return RunContext(
        store=str(tmp_path / "store"),
        run_dir=str(tmp_path / "run"),
        run_name="run",
        image="registry/train@sha256:" + 64 * "a",
        cluster=Cluster(training=QUICK, profiles={"train": PROFILE}, default="train"),
    )


def job(run: RunContext) -> Job:
    fixed = run.model_copy(update={"store": "/store", "run_dir": "/run"})
    return Job.of("tune_mllm", "{}", fixed, {}, {"stage": "pair"})


class Launched:
    """A launcher, and what it told."""

    def __init__(self, run: RunContext, tmp_path: Path, profile: Profile = PROFILE) -> None:
        self.lines: list[str] = []
        self.page = tmp_path / "job.html"
        placement = Placement.of(profile)
        self.launcher = TrainJobLauncher(run, profile, placement, "key", self.page, tell=self.lines.append)
        self.name = job_name(run, "tune_mllm_pair", "key")

    def go(self, run: RunContext) -> None:
        self.launcher.run(job(run))


@pytest.fixture
def launched(run: RunContext, server: TrainerServer, tmp_path: Path) -> Launched:
    return Launched(run, tmp_path)


def outcomes(run: RunContext) -> list[str]:
    return [row["outcome"] for row in attempts_of(Path(run.run_dir), "tune_mllm_pair")]


def test_the_manifest_is_as_committed_and_trainer_reads_all_of_it(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

    server.scripts = [[DONE]]
    launched.go(run)
    (made,) = server.made
    made["metadata"]["name"] = "tune-mllm-pair-0123456789"
    made["metadata"]["labels"]["visavis/run"] = "0123456789abcdef"
    assert TrainerV1alpha1TrainJob.from_dict(made).to_dict() == made
    assert made == yaml.safe_load(GOLDEN.read_text()), (
        f"compare with {GOLDEN.name}:\n{yaml.safe_dump(made, sort_keys=True)}"
    )


def test_a_job_does_what_its_arguments_say(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    from visavis.launch import jobs

    big = Job("s", "f", "ä" * 200_000, "{}", {"tokens": "{}"})
    arguments = big.arguments(8, nodes=2)
    assert arguments[:5] == ["-m", "torch.distributed.run", "--nproc-per-node=8", "-m", "visavis.launch.jobs"]
    assert len(arguments) > 6 and all(len(piece.encode()) < 128 << 10 for piece in arguments)
    done: list[Job] = []
    monkeypatch.setattr(Job, "do", lambda self: done.append(self))
    jobs.main(arguments[5:])
    assert done == [big]
    assert Job("s", "f", "", "", {}).arguments(1)[:2] == ["-m", "visavis.launch.jobs"]
    assert "--standalone" in Job("s", "f", "", "", {}).arguments(2)


def test_the_name_follows_from_run_step_and_result_and_fits_kubernetes(run: RunContext) -> None:
    name = job_name(run, "tune_mllm_reconstruct_with_more", "key")
    assert name == job_name(run, "tune_mllm_reconstruct_with_more", "key") and len(name) <= 37
    others = {job_name(run, "tune_mllm_reconstruct_with_more", "other"), job_name(run, "tune_rounds", "key")}
    elsewhere = run.model_copy(update={"run_dir": "/another"})
    assert name not in others | {job_name(elsewhere, "tune_mllm_reconstruct_with_more", "key")}


def test_a_job_that_is_done_before_the_first_look_is_done(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    server.scripts = [[DONE]]
    launched.go(run)
    assert outcomes(run) == ["JobsComplete"] and server.jobs == {}
    (attempt,) = attempts_of(Path(run.run_dir), "tune_mllm_pair")
    assert attempt["seconds"] == 3600 and attempt["nodes"] == 2
    assert "<td>16.00</td><td>48.00</td>" in launched.page.read_text()


def test_what_the_first_node_prints_is_told_once(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    server.log = ["2026-01-01T00:00:01.5Z step 1", "2026-01-01T00:00:02.123456789Z step 2"]
    server.scripts = [[RUNNING, RUNNING, RUNNING, DONE]]
    launched.go(run)
    assert launched.lines == ["step 1", "step 2"]


@pytest.mark.parametrize("there", [RUNNING, Frame(suspended=True, pods=()), Frame(pods=())])
def test_a_job_that_is_there_is_adopted(
    run: RunContext, server: TrainerServer, launched: Launched, there: Frame
) -> None:
    server.scripts = [[there, there, DONE]]
    server.put(
        {"metadata": {"name": launched.name, "labels": {}}, "spec": {"runtimeRef": {"name": "visavis-train"}}}
    )
    launched.go(run)
    assert server.made == [] and outcomes(run) == ["JobsComplete"]


def test_a_failed_job_that_is_there_is_made_anew_once_its_name_is_free(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    server.scripts = [[failed(PodNow("Failed", 1))], [RUNNING, DONE]]
    server.put(
        {"metadata": {"name": launched.name, "labels": {}}, "spec": {"runtimeRef": {"name": "visavis-train"}}}
    )
    server.lingers = 3
    launched.go(run)
    assert len(server.made) == 1 and outcomes(run) == ["JobsComplete"]


def test_a_job_that_another_attempt_makes_at_the_same_moment_is_adopted(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    server.scripts, server.conflicts = [[RUNNING, DONE]], 1
    launched.go(run)
    assert server.made == [] and outcomes(run) == ["JobsComplete"]


@pytest.mark.parametrize(
    "end",
    [
        failed(PodNow("Failed", RESUME_ME), PodNow("Failed", 143)),
        failed(PodNow("Failed", reason="Evicted", lost=True), PodNow("Failed", 1)),
        failed(PodNow("Failed", reason="NodeLost")),
        failed(),
    ],
    ids=["saved", "evicted", "node lost", "pods gone"],
)
def test_a_job_that_was_taken_away_is_begun_again(
    run: RunContext, server: TrainerServer, launched: Launched, end: Frame
) -> None:
    server.scripts = [[RUNNING, end], [RUNNING, end], [DONE]]
    launched.go(run)
    assert len(server.made) == 3 and len(outcomes(run)) == 3
    assert {job["metadata"]["name"] for job in server.made} == {launched.name}


def test_what_torchrun_hides_the_note_of_the_step_tells(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    write_json(Path(run.run_dir) / "timings" / "tune_mllm_pair.json", {"status": "stopped"})
    server.scripts = [[failed(PodNow("Failed", 1), PodNow("Failed", 1))], [DONE]]
    launched.go(run)
    assert len(server.made) == 2


def test_the_hours_of_a_profile_are_those_of_all_attempts(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    server.scripts = [[failed(PodNow("Failed", RESUME_ME))], [DONE]]
    launched.go(run)
    assert [made["spec"]["activeDeadlineSeconds"] for made in server.made] == [7200, 3600]


def test_it_ends_when_it_is_taken_away_too_often(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    server.scripts = [[failed(PodNow("Failed", RESUME_ME))] for _ in range(3)]
    with pytest.raises(TransientError, match="taken away or stopped too often") as caught:
        launched.go(run)
    assert "from its checkpoint" in caught.value.fix and len(server.made) == 3 and server.jobs == {}


def test_spot_nodes_are_begun_again_more_often(
    run: RunContext, server: TrainerServer, tmp_path: Path
) -> None:
    launched = Launched(run, tmp_path, PROFILE.model_copy(update={"spot": True, "hours": 48.0}))
    server.scripts = [*([failed(PodNow("Failed", RESUME_ME))] for _ in range(10)), [DONE]]
    launched.go(run)
    assert len(server.made) == 11


def test_one_rank_that_fails_is_named_and_its_last_lines_are_kept(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    server.log = ["2026-01-01T00:00:01Z <loss> 0.5", "2026-01-01T00:00:02Z ValueError: broken"]
    server.events = [
        {
            "metadata": {"name": "e", "namespace": SPACE, "creationTimestamp": "2026-01-01T00:00:03Z"},
            "involvedObject": {"kind": "Pod", "name": f"{launched.name}-node-0-1"},
            "reason": "BackOff",
            "message": "it ended",
            "lastTimestamp": "2026-01-01T00:00:03Z",
        }
    ]
    server.scripts = [[RUNNING, failed(PodNow("Failed", 143), PodNow("Failed", 3, "Error"))]]
    with pytest.raises(JobFailed, match=r"node 1 \(.*\) ended with 3: Error"):
        launched.go(run)
    page = launched.page.read_text()
    assert "&lt;loss&gt; 0.5" in page and "ValueError: broken" in page and "BackOff: it ended" in page
    assert server.jobs == {}


def test_a_failed_job_may_be_kept_until_its_run_is_closed(
    run: RunContext, server: TrainerServer, tmp_path: Path
) -> None:
    training = QUICK.model_copy(update={"keep_failed": True})
    kept = run.model_copy(update={"cluster": run.cluster.model_copy(update={"training": training})})
    launched = Launched(kept, tmp_path)
    server.scripts = [[failed(PodNow("Failed", 1))], [RUNNING]]
    with pytest.raises(JobFailed):
        launched.go(kept)
    others = {"metadata": {"name": "other", "labels": {"visavis/run": "another"}}, "spec": {}}
    server.put(others)
    assert list(server.jobs) == [launched.name, "other"]
    assert delete_jobs(kept) == [launched.name]
    assert list(server.jobs) == ["other"]


def test_memory_and_time_that_do_not_suffice_are_told_with_the_field(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    server.scripts = [[failed(PodNow("Failed", 137, "OOMKilled"))], [failed(reason="DeadlineExceeded")]]
    with pytest.raises(VisavisError, match="more memory than the 1024Gi") as caught:
        launched.go(run)
    assert not isinstance(caught.value, TransientError)
    with pytest.raises(VisavisError, match="longer than the 2 h of its profile"):
        launched.go(run)


def with_training(run: RunContext, **changes: Any) -> RunContext:
    training = QUICK.model_copy(update=changes)
    return run.model_copy(update={"cluster": run.cluster.model_copy(update={"training": training})})


def test_a_job_that_never_starts_is_given_up_and_leaves_nothing(
    run: RunContext, server: TrainerServer, tmp_path: Path
) -> None:
    impatient = with_training(run, start_minutes=0.002)
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"
    server.scripts = [[Frame(pods=(PodNow("Pending", message=message),))]]
    with pytest.raises(TransientError, match=r"did not begin within .*3 Insufficient nvidia\.com/gpu"):
        Launched(impatient, tmp_path).go(impatient)
    assert server.jobs == {}


def test_time_in_a_queue_is_not_time_to_start(run: RunContext, server: TrainerServer, tmp_path: Path) -> None:
    impatient = with_training(run, start_minutes=0.01)
    queued = Frame(suspended=True, pods=())
    server.scripts = [[*[queued] * 80, RUNNING, DONE]]
    began = time.monotonic()
    Launched(impatient, tmp_path).go(impatient)
    assert time.monotonic() - began > 0.6
    bored = with_training(run, queue_hours=0.0001)
    server.scripts = [[queued]]
    with pytest.raises(TransientError, match="stood in queue team-a"):
        Launched(bored, tmp_path).go(bored)


def test_a_job_that_somebody_deletes_is_not_made_anew(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    server.scripts = [[RUNNING, RUNNING, Frame(gone=True)]]
    with pytest.raises(VisavisError, match="somebody deleted it"):
        launched.go(run)
    assert len(server.made) == 1


def test_a_cluster_that_does_not_answer_for_a_while_is_waited_for(
    run: RunContext, server: TrainerServer, launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.scripts = [[RUNNING, Frame(status=503), Frame(status=429), RUNNING, DONE]]
    launched.go(run)
    assert outcomes(run) == ["JobsComplete"]
    monkeypatch.setattr("visavis.launch.trainjob._PATIENCE_SECONDS", 0.0)
    server.scripts = [[RUNNING, Frame(status=503)]]
    with pytest.raises(TransientError, match="the cluster answers 503 etcd has no leader"):
        launched.go(run)


def test_a_runtime_that_is_not_there_is_named(
    run: RunContext, server: TrainerServer, launched: Launched
) -> None:
    server.known = set()
    with pytest.raises(VisavisError, match="404") as caught:
        launched.go(run)
    assert "training.runtime" in caught.value.fix and not isinstance(caught.value, TransientError)


@pytest.mark.parametrize(
    ("status", "words", "fix"),
    [
        (403, "answers 403 as the test says", "service account"),
        (404, "answers 404 as the test says", "install Kubeflow Trainer"),
        (422, "answers 422 as the test says", "change the profile"),
        (503, "answers 503 as the test says", "repeat the command"),
    ],
)
def test_a_cluster_that_refuses_a_job_is_understood(
    server: TrainerServer, launched: Launched, run: RunContext, status: int, words: str, fix: str
) -> None:
    server.refuses = status
    with pytest.raises(VisavisError, match=words) as caught:
        launched.go(run)
    assert fix in caught.value.fix and isinstance(caught.value, TransientError) == (status == 503)


def test_what_kubeflow_hands_on_of_the_task_counts_before_the_profile() -> None:
    task = {
        "resources": {"limits": {"nvidia.com/gpu": "4", "cpu": "8"}},
        "node_selector": {"gpu": "a100"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {}}}],
    }
    placed = Placement.of(PROFILE, task)
    assert placed.resources == {"nvidia.com/gpu": "4", "cpu": "8"} and placed.selector == {"gpu": "a100"}
    assert placed.tolerations == ({"key": "spot", "operator": "Exists"},) and placed.env == {"A": "1"}
    empty = dict.fromkeys(("resources", "node_selector", "tolerations", "env"))
    assert Placement.of(PROFILE, empty) == Placement.of(PROFILE)


def test_no_cluster_is_an_error_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = str(tmp_path / "nothing")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", nothing)
    with pytest.raises(VisavisError, match="no cluster is configured") as caught:
        TrainerApi()
    assert "training.run_as" in caught.value.fix


def test_jobs_of_a_run_are_known_by_a_label_that_kubernetes_takes(run: RunContext) -> None:
    assert len(run_label(run)) == 16 and run_label(run).isalnum()
    assert RunContext.model_validate_json(job(run).context).cluster == Cluster()
