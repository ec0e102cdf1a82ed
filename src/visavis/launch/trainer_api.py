"""What a training job is to Kubernetes: made and deleted by Kubeflow's SDK, looked at more closely than that does.

The SDK tells neither why a job failed, nor whether it stands in a queue, nor how a pod ended; so these are read from
the objects themselves.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from visavis.cluster import Placement, Profile
from visavis.cluster.profiles import QUEUE_LABEL, SHM_VOLUME
from visavis.errors import TransientError, VisavisError

GROUP, VERSION, JOBS = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RUN_LABEL, STEP_LABEL = "visavis/run", "visavis/step"
CONTAINER = "node"
"""Name that Trainer gives to the container that trains."""
_POD_LABEL, _INDEX_LABEL = "jobset.sigs.k8s.io/jobset-name", "batch.kubernetes.io/job-completion-index"
_LOST = {
    "Evicted",
    "Preempting",
    "Preempted",
    "NodeLost",
    "NodeAffinity",
    "Shutdown",
    "Terminated",
    "NodeShutdown",
}
"""Reasons of a pod's end that lie in its node."""
_FIRST_LINES = 2000
"""Lines of a pod that are told when it is first read: a job that is adopted may have printed for days."""
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z? ?(.*)$", re.DOTALL)

TOO_LONG, DELETED = "DeadlineExceeded", "Deleted"
"""Why a job ended: Kubernetes' word, and ours for one that is gone."""

State = Literal["absent", "queued", "waiting", "running", "complete", "failed"]


@dataclass(frozen=True)
class Pod:
    """One node of a job.

    Attributes:
        name: Its name.
        rank: Number of the node.
        phase: Kubernetes' word for how far it is.
        code: Exit code of the training; None while it goes on.
        reason: Kubernetes' word for why it waits or ended.
        message: The same in a sentence.
        lost: Whether it was taken away with its node.
        seconds: How long it has held its node.
    """

    name: str
    rank: int
    phase: str
    code: int | None = None
    reason: str = ""
    message: str = ""
    lost: bool = False
    seconds: float = 0.0

    def words(self) -> str:
        """Returns what people read of it."""
        ended = f"ended with {self.code}" if self.code is not None else self.phase.lower()
        return f"node {self.rank} ({self.name}) {ended}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Look:
    """What is seen of a job at a moment.

    Attributes:
        state: How far it is.
        reason: Kubernetes' word for why it ended.
        message: The same in a sentence.
        pods: Its nodes, in their order.
        deleting: Whether it is being deleted.
    """

    state: State
    reason: str = ""
    message: str = ""
    pods: tuple[Pod, ...] = ()
    deleting: bool = False

    @property
    def seconds(self) -> float:
        """How long the job has held its nodes."""
        return max((pod.seconds for pod in self.pods), default=0.0)

    @property
    def may_go_on(self) -> bool:
        """Whether a failed job was stopped or taken away, so that the same job goes on from its last checkpoint."""
        if self.reason in (TOO_LONG, DELETED):
            return False
        return not self.pods or any(pod.lost or pod.code == os.EX_TEMPFAIL for pod in self.pods)

    @property
    def culprit(self) -> Pod | None:
        """The node that failed of itself; the others are stopped because of it."""
        failed = [pod for pod in self.pods if pod.code]
        # SIGTERM and SIGKILL, as shells count them, and what torchrun makes of the first: those may be others' doing.
        own = [pod for pod in failed if pod.code not in (137, 143) or pod.reason == "OOMKilled"]
        return next(iter(own or failed), None)


class TrainerApi:
    """Kubernetes, as far as training jobs are concerned.

    Attributes:
        namespace: Where the jobs are.
        core: Kubernetes' client for its own kinds.
        objects: Kubernetes' client for custom resources.

    Args:
        namespace: Where the jobs are; empty: where this process runs, or what the configuration of kubectl says.

    Raises:
        VisavisError: If no cluster is configured.
    """

    def __init__(self, namespace: str = "") -> None:
        from kubeflow.common.types import KubernetesBackendConfig
        from kubeflow.trainer import TrainerClient
        from kubernetes.config import ConfigException

        # It says in ten lines that a service account may not read the version of the control plane.
        logging.getLogger("kubeflow.trainer").setLevel(logging.ERROR)
        try:
            self._client = TrainerClient(KubernetesBackendConfig(namespace=namespace or None))
        except ConfigException as error:
            raise VisavisError(
                f"no cluster is configured: {error}",
                fix="run this on a cluster, or set training.run_as to `process` in the cluster file",
            ) from None
        backend: Any = self._client.backend
        self.objects, self.core = backend.custom_api, backend.core_api
        self.namespace: str = backend.namespace

    def create(
        self,
        name: str,
        arguments: list[str],
        *,
        runtime: str,
        image: str,
        profile: Profile,
        placement: Placement,
        seconds: int,
        labels: Mapping[str, str],
    ) -> bool:
        """Makes a job; returns False if there is one of that name already.

        Args:
            name: Its name.
            arguments: What `python` is started with.
            runtime: TrainingRuntime that it is made of.
            image: Image of the training; empty: that of the runtime.
            profile: How many nodes, out of which queue.
            placement: On which nodes, with what.
            seconds: For how long.
            labels: Labels of the job.
        """
        from kubeflow.trainer import CustomTrainerContainer
        from kubeflow.trainer import options as k8s

        queue = {QUEUE_LABEL: profile.queue} if profile.queue else {}
        trainer = CustomTrainerContainer(
            image=image,
            num_nodes=profile.nodes,
            resources_per_node=dict(placement.resources),
            env=dict(placement.env) or None,
        )
        options = [
            k8s.Name(name),
            k8s.Labels({**labels, **queue}),
            k8s.ActiveDeadlineSeconds(seconds),
            k8s.TrainerCommand(["python"]),
            k8s.TrainerArgs(arguments),
            *_patches(profile, placement),
        ]
        try:
            with answered(f"TrainJob {self.namespace}/{name}"):
                self._client.train(runtime=runtime, trainer=trainer, options=options)
        except Conflict:
            return False
        except Absent:
            raise VisavisError(
                f"the cluster knows no TrainJobs, or has no namespace {self.namespace}",
                fix="install Kubeflow Trainer 2.2 or newer, and look at training.namespace of the cluster file",
            ) from None
        return True

    def look(self, name: str) -> Look:
        """Returns what is seen of a job now."""
        from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

        try:
            with answered(f"TrainJob {self.namespace}/{name}"):
                found = self.objects.get_namespaced_custom_object(GROUP, VERSION, self.namespace, JOBS, name)
                job = TrainerV1alpha1TrainJob.from_dict(found)
                label = f"{_POD_LABEL}={name}"
                pods = self.core.list_namespaced_pod(self.namespace, label_selector=label).items
        except Absent:
            return Look("absent")
        nodes = tuple(sorted((_pod(pod) for pod in pods), key=lambda pod: (pod.rank, pod.name)))
        deleting = job.metadata.deletion_timestamp is not None
        ended = {
            row.type: row for row in (job.status and job.status.conditions) or () if row.status == "True"
        }
        for kind, state in (("Complete", "complete"), ("Failed", "failed")):
            if row := ended.get(kind):
                return Look(state, row.reason, row.message, nodes, deleting)  # type: ignore[arg-type]
        wanted = (job.spec.trainer and job.spec.trainer.num_nodes) or 1
        running = sum(pod.phase in ("Running", "Succeeded") for pod in nodes) >= wanted
        return Look(
            "queued" if job.spec.suspend else "running" if running else "waiting",
            pods=nodes,
            deleting=deleting,
        )

    def delete(self, name: str) -> None:
        """Begins to delete a job; one that is not there is none to delete."""
        try:
            with answered(f"TrainJob {self.namespace}/{name}"):
                self._client.delete_job(name)
        except Absent:
            pass

    def names(self, run: str) -> list[str]:
        """Returns the jobs of a run.

        Args:
            run: Label of the run.
        """
        try:
            with answered(f"the TrainJobs in {self.namespace}"):
                found = self.objects.list_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, JOBS, label_selector=f"{RUN_LABEL}={run}"
                )
        except Absent:
            return []
        return sorted(item["metadata"]["name"] for item in found["items"])

    def lines(self, pod: str, since: str = "") -> list[tuple[str, str]]:
        """Returns what a pod printed, each line with a stamp that sorts in time.

        Args:
            pod: Its name.
            since: Stamp of the last line that is known.
        """
        from kubernetes.client import ApiException

        more = {"since_seconds": _age(since)} if since else {"tail_lines": _FIRST_LINES}
        try:
            text = self.core.read_namespaced_pod_log(
                pod, self.namespace, container=CONTAINER, timestamps=True, **more
            )
        except ApiException:
            return []  # it has not begun, or is gone
        stamped = (_stamped(line) for line in (text or "").splitlines())
        return [(stamp, line) for stamp, line in stamped if stamp > since]

    def events(self, name: str) -> list[str]:
        """Returns what Kubernetes says of a job and its pods, the oldest first."""
        with answered(f"the events in {self.namespace}"):
            events = self.core.list_namespaced_event(self.namespace).items
        own = [event for event in events if (event.involved_object.name or "").startswith(name)]
        rows = [
            (event.last_timestamp or event.event_time or event.metadata.creation_timestamp, event)
            for event in own
        ]
        return [
            f"{when:%H:%M:%S} {event.involved_object.name}: {event.reason}: {event.message}"
            for when, event in sorted(rows, key=lambda row: row[0])
        ]


def _patches(profile: Profile, placement: Placement) -> list[Any]:
    """Returns the changes to the runtime's pods; none if there is nothing to change."""
    from kubeflow.trainer import options as k8s

    shm = {"name": SHM_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": profile.shm}}
    pod = k8s.PodSpecPatch(
        node_selector=dict(placement.selector) or None,
        tolerations=[dict(row) for row in placement.tolerations] or None,
        volumes=[shm] if profile.shm else None,
    )
    if pod == k8s.PodSpecPatch():
        return []
    job = k8s.JobTemplatePatch(spec=k8s.JobSpecPatch(template=k8s.PodTemplatePatch(spec=pod)))
    jobs = k8s.JobSetSpecPatch(replicated_jobs=[k8s.ReplicatedJobPatch(name=CONTAINER, template=job)])
    return [k8s.RuntimePatch(k8s.TrainingRuntimeSpecPatch(template=k8s.JobSetTemplatePatch(spec=jobs)))]


def _pod(pod: Any) -> Pod:
    status, labels = pod.status, pod.metadata.labels or {}
    container = next((row for row in status.container_statuses or () if row.name == CONTAINER), None)
    state = container.state if container else None
    ended, waiting = (state.terminated, state.waiting) if state else (None, None)
    said = ended or waiting
    scheduled = next(
        (row for row in status.conditions or () if row.type == "PodScheduled" and row.status == "False"), None
    )
    disrupted = any(
        row.type == "DisruptionTarget" and row.status == "True" for row in status.conditions or ()
    )
    until = (ended and ended.finished_at) or datetime.now(UTC)
    return Pod(
        name=pod.metadata.name,
        rank=int(labels.get(_INDEX_LABEL, 0)),
        phase=status.phase or "Unknown",
        code=ended.exit_code if ended else None,
        reason=status.reason or (said and said.reason) or (scheduled and scheduled.reason) or "",
        message=status.message or (said and said.message) or (scheduled and scheduled.message) or "",
        lost=disrupted or status.reason in _LOST,
        seconds=(until - status.start_time).total_seconds() if status.start_time else 0.0,
    )


def _stamped(line: str) -> tuple[str, str]:
    """Divides a line into its time, made to sort, and its text."""
    found = _STAMP.match(line)
    if found is None:
        return "", line
    seconds, fraction, text = found.groups()
    return f"{seconds}.{(fraction or '').ljust(9, '0')}", text


def _age(stamp: str) -> int:
    then = datetime.fromisoformat(stamp[:19]).replace(tzinfo=UTC)
    return max(1, int((datetime.now(UTC) - then).total_seconds()) + 2)


class Absent(Exception):
    """There is no such object."""


class Conflict(Exception):
    """There is such an object already."""


@contextmanager
def answered(what: str) -> Iterator[None]:
    """Makes errors of Kubernetes such as people read, out of those that the SDK hides behind its own.

    Args:
        what: What is asked for, in words.

    Raises:
        Absent: If it does not exist.
        Conflict: If it exists already.
        VisavisError: If the cluster refuses; `TransientError` if it does not answer.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (ApiException, HTTPError, RuntimeError, TimeoutError) as error:
        reason = error if isinstance(error, ApiException | HTTPError) else error.__cause__ or error
        if isinstance(error, TimeoutError) or isinstance(reason, HTTPError):
            raise TransientError(f"{what}: the cluster does not answer: {reason}", fix=_AGAIN) from error
        if not isinstance(reason, ApiException):
            raise VisavisError(f"{what}: {error}: {reason}", fix=_MALFORMED) from error
        status, said = reason.status, _said(reason)
        if status == 404 and "runtime" not in f"{error}".lower():
            raise Absent from None
        if status == 409:
            raise Conflict from None
        if status == 429 or status >= 500:
            raise TransientError(f"{what}: the cluster failed: {status} {said}", fix=_AGAIN) from error
        fix = _REFUSED.get(status, _MALFORMED)
        raise VisavisError(f"{what}: the cluster refused: {status} {said}", fix=fix) from error


_REFUSED = {
    401: "give the step a service account",
    403: "let the step's service account work with TrainJobs and read pods, logs and events: the chart's Role does",
    404: "install the chart, or name its TrainingRuntime in training.runtime of the cluster file",
}
_AGAIN = "run this again; it goes on where it was"
_MALFORMED = "read what the cluster says, and change the profile in the cluster file"


def _said(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
