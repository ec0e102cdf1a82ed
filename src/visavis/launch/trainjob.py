"""Training on a cluster: one Kubeflow TrainJob for a step, begun again from its checkpoint when it is taken away.

A job has a name that follows from run, step and result, so that a step that Kubeflow tries again finds the job it left
behind, and two attempts never train the same thing side by side.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from visavis.cluster import Placement, Profile
from visavis.cluster.cost import note_attempt
from visavis.errors import TransientError, VisavisError
from visavis.files import read_json, sha256_bytes
from visavis.launch.job_page import write_page
from visavis.launch.jobs import Job, JobFailed
from visavis.launch.run_folder import step_folder
from visavis.launch.trainer_api import DELETED, RUN_LABEL, STEP_LABEL, TOO_LONG, Look, TrainerApi
from visavis.steps.contracts import RunContext

log = logging.getLogger("visavis.launch")

TAIL_LINES = 200
_PATIENCE_SECONDS = 600.0
"""How long the cluster may not answer before a wait for a job ends; the job goes on meanwhile."""
_LONGEST_BACKOFF = 600.0


def run_label(run: RunContext) -> str:
    """Returns the value of the label that all jobs of a run have."""
    return sha256_bytes(run.run_dir.encode())[:16]


def job_name(run: RunContext, step: str, key: str) -> str:
    """Returns the name of the job that makes a result: short enough for the names of its pods."""
    digest = sha256_bytes("\n".join([run.run_dir, step, key]).encode())[:10]
    return f"{re.sub('[^a-z0-9]+', '-', step.lower()).strip('-')[:26]}-{digest}"


@dataclass(frozen=True)
class _Ended:
    """How an attempt ended.

    Attributes:
        look: What was seen last.
        seconds: How long its pods held their nodes.
    """

    look: Look
    seconds: float


class TrainJobLauncher:
    """Has jobs done by Kubeflow's Trainer, and waits for them.

    Args:
        run: The run.
        profile: What a job of this step takes.
        placement: On which nodes, with what.
        key: Key of the result; a part of the job's name.
        page: File that tells how it went: attempts, last lines, events.
        api: Kubernetes; made when it is left out.
        tell: Takes each line that the first node prints.
    """

    def __init__(
        self,
        run: RunContext,
        profile: Profile,
        placement: Placement,
        key: str,
        page: Path,
        api: TrainerApi | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._run, self._profile, self._placement, self._key = run, profile, placement, key
        self._settings = run.cluster.training
        self._api = api or TrainerApi(self._settings.namespace)
        self._page, self._tell = page, tell
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._used = 0.0
        self._stamps: dict[str, str] = {}

    def run(self, job: Job) -> None:
        """Runs a job; see `visavis.launch.jobs.Launcher`."""
        name = job_name(self._run, job.step, self._key)
        left = self._settings.spot_restarts if self._profile.spot else self._settings.restarts
        wait = self._settings.backoff_seconds
        while True:
            self._adopt_or_create(name, job)
            ended = self._wait(name, job.step)
            self._used += ended.seconds
            self._note(name, job.step, ended)
            if ended.look.state == "complete":
                self._api.delete(name)
                return
            if not left or not self._may_go_on(ended.look, job.step):
                raise self._failure(name, job.step, ended.look)
            left -= 1
            log.warning("%s was taken away or stopped; it goes on from its checkpoint in %.0f s", name, wait)
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_BACKOFF)

    def _adopt_or_create(self, name: str, job: Job) -> None:
        """Sees to it that there is a job: one that runs or is complete is adopted, a failed one is made anew."""
        processes = self._settings.processes_on(self._profile)
        for _ in range(5):
            look = self._api.look(name)
            if look.state in ("queued", "waiting", "running", "complete") and not look.deleting:
                log.info("TrainJob %s is there already (%s): waiting for it", name, look.state)
                return
            if look.state != "absent":
                self._delete(name)
            made = self._api.create(
                name,
                job.arguments(processes, nodes=self._profile.nodes),
                runtime=self._settings.runtime,
                image=self._run.image,
                profile=self._profile,
                placement=self._placement,
                seconds=max(1, round(self._profile.seconds - self._used)),
                labels={RUN_LABEL: run_label(self._run), STEP_LABEL: job.step.replace("_", "-")},
            )
            if made:
                log.info("made TrainJob %s/%s", self._api.namespace, name)
                return
            # Another attempt of this step was faster.
        raise TransientError(
            f"TrainJob {name} is made and deleted by turns: another attempt of {job.step} works on it too",
            fix="end the other run, then run this again",
        )

    def _delete(self, name: str) -> None:
        """Deletes a job and returns when its name is free."""
        self._api.delete(name)
        patience = time.monotonic() + self._settings.start_minutes * 60
        while self._api.look(name).state != "absent":
            if time.monotonic() > patience:
                raise TransientError(
                    f"TrainJob {name} is being deleted and does not go",
                    fix=f"look for finalizers: kubectl -n {self._api.namespace} get trainjob {name} -o yaml",
                )
            time.sleep(self._settings.poll_seconds)

    def _wait(self, name: str, step: str) -> _Ended:
        """Waits until a job has ended, and tells what it prints; ended, not running: a short job is never seen so."""
        began = answered = time.monotonic()
        let_in: float | None = None
        seconds = 0.0
        while True:
            try:
                look = self._api.look(name)
                self._follow(look)
            except TransientError as error:
                if time.monotonic() - answered > _PATIENCE_SECONDS:
                    raise
                log.warning("%s", error.message)
                time.sleep(self._settings.poll_seconds)
                continue
            now = answered = time.monotonic()
            seconds = look.seconds or seconds
            if look.state in ("complete", "failed"):
                return _Ended(look, seconds)
            if look.state == "absent":
                return _Ended(Look("failed", DELETED, "somebody deleted it"), seconds)
            let_in = None if look.state == "queued" else let_in or now
            self._check_patience(name, step, look, now - began, now - (let_in or now))
            time.sleep(self._settings.poll_seconds)

    def _check_patience(self, name: str, step: str, look: Look, waited: float, since_let_in: float) -> None:
        """Gives up a job that does not begin, and leaves nothing of it behind that could take a GPU later."""
        settings = self._settings
        if look.state == "queued" and waited > settings.queue_hours * 3600:
            words = f"stood in queue {self._profile.queue or '(none)'} for {settings.queue_hours:g} h"
            fix = "wait until there is room and run this again, or raise training.queue_hours"
        elif look.state == "waiting" and since_let_in > settings.start_minutes * 60:
            words = f"did not begin within {settings.start_minutes:g} min ({_reasons(look)})"
            fix = f"look for nodes that fit profile of {step}: selector, tolerations, {self._placement.resources}"
        else:
            return
        self._write(name, step, look)
        self._api.delete(name)
        raise TransientError(f"TrainJob {name} {words}", fix=fix)

    def _follow(self, look: Look) -> None:
        """Tells what the first node printed since the last time."""
        for pod in look.pods[:1]:
            for stamp, line in self._api.lines(pod.name, self._stamps.get(pod.name, "")):
                self._stamps[pod.name] = stamp
                self._tail.append(line)
                self._tell(line)

    def _may_go_on(self, look: Look, step: str) -> bool:
        """Whether a failed job was stopped or taken away; torchrun hides the code of that, the step's note tells it."""
        if look.may_go_on:
            return True
        if look.reason in (TOO_LONG, DELETED):
            return False
        with step_folder(self._run, step) as folder:
            note = folder / "timings" / f"{step}.json"
            return note.is_file() and read_json(note)["status"] == "stopped"

    def _failure(self, name: str, step: str, look: Look) -> Exception:
        """Tells why a job failed, and cleans up after it if nobody is to look at it."""
        self._write(name, step, look)
        if not self._settings.keep_failed:
            self._api.delete(name)
        culprit = look.culprit
        if look.reason == DELETED:
            return VisavisError(
                f"TrainJob {name} is gone: {look.message}",
                fix="run this again: it goes on from its checkpoint",
            )
        if look.reason == TOO_LONG:
            return VisavisError(
                f"TrainJob {name} took longer than the {self._profile.hours:g} h of its profile",
                fix=f"raise hours in the profile of {step}; the training goes on from its checkpoint",
            )
        if culprit is not None and culprit.reason == "OOMKilled":
            return VisavisError(
                f"TrainJob {name}: node {culprit.rank} took more memory than the {self._profile.memory} of its profile",
                fix=f"raise memory in the profile of {step}, or lower the recipe's batch size",
            )
        if self._may_go_on(look, step):
            return TransientError(
                f"TrainJob {name} was taken away or stopped too often ({_reasons(look) or look.message})",
                fix="run this again: it goes on from its checkpoint; or raise training.restarts",
            )
        return JobFailed(f"TrainJob {name}: {culprit.words() if culprit else look.message or look.reason}")

    def _note(self, name: str, step: str, ended: _Ended) -> None:
        attempt = {
            "job": name,
            "outcome": ended.look.reason or ended.look.state,
            "seconds": round(ended.seconds, 3),
            "nodes": self._profile.nodes,
        }
        with step_folder(self._run, step) as folder:
            note_attempt(folder, step, attempt)
        self._write(name, step, ended.look)

    def _write(self, name: str, step: str, look: Look) -> None:
        """Writes the page; of nodes that nobody followed, the last lines are read now."""
        tails = {
            pod.name: [line for _, line in self._api.lines(pod.name)][-TAIL_LINES:] for pod in look.pods[1:]
        }
        first = look.pods[0].name if look.pods else name
        try:
            events = self._api.events(name)
        except VisavisError as error:
            events = [error.message]
        write_page(self._page, self._run, step, look, {first: list(self._tail), **tails}, events)


def _reasons(look: Look) -> str:
    """Returns why the nodes of a job wait or ended, each reason once."""
    said = dict.fromkeys(": ".join(filter(None, [pod.reason, pod.message])) for pod in look.pods)
    return "; ".join(filter(None, said)) or "it has no pods"


def delete_jobs(run: RunContext, namespace: str = "") -> list[str]:
    """Deletes the jobs that a run left behind.

    Args:
        run: The run.
        namespace: Where they are, if the cluster file does not say so; empty: where this process runs.

    Returns:
        Their names.
    """
    api = TrainerApi(run.cluster.training.namespace or namespace)
    names = api.names(run_label(run))
    for name in names:
        api.delete(name)
    return names
