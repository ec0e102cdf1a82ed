"""What a training job is to Kubernetes: made and deleted by Kubeflow's SDK, looked at more closely than that does.

The SDK tells neither why a job failed, nor whether it stands in a queue, nor how a pod ended; so these are read from
the objects themselves.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from visavis.cluster import Placement, Profile
from visavis.cluster.profiles import QUEUE_LABEL, SHM_VOLUME
from visavis.errors import VisavisError
from visavis.kube import KubernetesRefusedError, ask, asking

_KIND = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
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

_FIXES = {
    401: "give the step a service account",
    403: "let the step's service account work with TrainJobs and read pods, logs and events: the chart's Role does",
    404: "install Kubeflow Trainer 2.2 or newer, and look at training.namespace of the cluster file",
    422: "read what is said of the job, and change the profile or the TrainingRuntime",
}
_RUNTIME_FIXES = {
    **_FIXES,
    404: "install the chart, or name its TrainingRuntime in training.runtime of the cluster file",
}

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

    def _ask(self, what: str, call: Callable[..., Any], **arguments: Any) -> Any:
        return ask(what, call, fixes=_FIXES, namespace=self.namespace, **arguments)

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
            with asking(f"find TrainingRuntime {runtime} in {self.namespace}", fixes=_RUNTIME_FIXES):
                found = self._client.get_runtime(runtime)
            with asking(f"make TrainJob {self.namespace}/{name}", fixes=_FIXES):
                self._client.train(runtime=found, trainer=trainer, options=options)
        except KubernetesRefusedError as error:
            if error.status == 409:
                return False
            raise
        except RuntimeError as error:  # the SDK's own checks, of the runtime for example
            raise VisavisError(f"TrainJob {name}: {error}: {error.__cause__}", fix=_FIXES[422]) from error
        return True

    def look(self, name: str) -> Look:
        """Returns what is seen of a job now."""
        from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

        try:
            found = self._ask(
                f"look at TrainJob {name}", self.objects.get_namespaced_custom_object, **_KIND, name=name
            )
        except KubernetesRefusedError as error:
            if error.status == 404:
                return Look("absent")
            raise
        job = TrainerV1alpha1TrainJob.from_dict(found)
        label = f"{_POD_LABEL}={name}"
        pods = self._ask(
            f"look at the pods of {name}", self.core.list_namespaced_pod, label_selector=label
        ).items
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
            with asking(f"delete TrainJob {self.namespace}/{name}", fixes=_FIXES):
                self._client.delete_job(name)
        except KubernetesRefusedError as error:
            if error.status != 404:
                raise

    def names(self, run: str) -> list[str]:
        """Returns the jobs of a run.

        Args:
            run: Label of the run.
        """
        found = self._ask(
            f"list the TrainJobs in {self.namespace}",
            self.objects.list_namespaced_custom_object,
            **_KIND,
            label_selector=f"{RUN_LABEL}={run}",
        )
        return sorted(item["metadata"]["name"] for item in found["items"])

    def lines(self, pod: str, since: str = "") -> list[tuple[str, str]]:
        """Returns what a pod printed, each line with a stamp that sorts in time.

        Args:
            pod: Its name.
            since: Stamp of the last line that is known.
        """
        more = {"since_seconds": _age(since)} if since else {"tail_lines": _FIRST_LINES}
        try:
            text = self._ask(
                f"read the log of {pod}",
                self.core.read_namespaced_pod_log,
                name=pod,
                container=CONTAINER,
                timestamps=True,
                **more,
            )
        except KubernetesRefusedError:
            return []  # it has not begun, or is gone
        stamped = (_stamped(line) for line in (text or "").splitlines())
        return [(stamp, line) for stamp, line in stamped if stamp > since]

    def events(self, name: str) -> list[str]:
        """Returns what Kubernetes says of a job and its pods, the oldest first."""
        events = self._ask(f"list the events in {self.namespace}", self.core.list_namespaced_event).items
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
