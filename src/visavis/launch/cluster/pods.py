"""The pods of a run: what their steps wrote, and why they ended, as the Kubernetes API tells it.

Kubeflow's API of 2.17 names no pods, but every pod carries the run's id in the label `pipeline/runid`, and in an
annotation of Argo the path of its node, such as `train-x7k2p.root.exit-handler-1.list-clips.executor`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from visavis.kube import ask, cluster_api

_RUN_LABEL = "pipeline/runid"
_NODE = "workflows.argoproj.io/node-name"
_STEP_OF = re.compile(r"\.(?P<task>[^.()]+?)(\(\d+:[^)]*\))?\.executor(\(\d+[^)]*\))?$")
_CONTAINER = "main"
_CONNECT_S = 5.0
_UNTOLD = frozenset({"Completed", "Error", "PodInitializing", "ContainerCreating"})
"""Reasons that say no more than that it ended, or has not begun."""


@dataclass(frozen=True)
class StepPod:
    """A pod that does, or did, the work of a task.

    Attributes:
        name: Its name.
        task: Name of the task in the pipeline.
        started: When it began; the epoch if it has not.
        reason: Why it ended or does not begin, such as `OOMKilled` or `ImagePullBackOff`; empty if all is well.
    """

    name: str
    task: str
    started: datetime
    reason: str


class Pods:
    """The pods of one run.

    Args:
        namespace: Namespace of the run.
        run_id: Kubeflow's id of it.
        api: Client of the cluster; by default that of the kubeconfig.

    Raises:
        VisavisError: If no cluster is configured.
    """

    def __init__(self, namespace: str, run_id: str, api: Any = None) -> None:
        from kubernetes import client

        self._core = client.CoreV1Api(
            api or cluster_api(otherwise="open the run's page, which shows its logs too")
        )
        self._namespace, self._run_id = namespace, run_id

    def all(self) -> list[StepPod]:
        """Returns the pods that are still there, the oldest first.

        Raises:
            VisavisError: If the cluster does not answer or refuses.
        """
        found = self._ask(
            f"list the pods of run {self._run_id}",
            self._core.list_namespaced_pod,
            label_selector=f"{_RUN_LABEL}={self._run_id}",
        )
        pods = [pod for item in found.items if (pod := _step_pod(item)) is not None]
        return sorted(pods, key=lambda pod: (pod.started, pod.name))

    def log(self, pod: StepPod, tail: int) -> str:
        """Returns the last lines that a step wrote.

        Raises:
            VisavisError: If the pod is gone, or the cluster refuses.
        """
        text = self._ask(
            f"read the log of pod {pod.name}",
            self._core.read_namespaced_pod_log,
            name=pod.name,
            container=_CONTAINER,
            tail_lines=tail,
            _preload_content=False,
        )
        return str(text.data.decode(errors="replace"))

    def follow(self, pod: StepPod, tail: int) -> Iterator[str]:
        """Yields what a step writes, until its pod ends."""
        answer = self._ask(
            f"read the log of pod {pod.name}",
            self._core.read_namespaced_pod_log,
            limits=(_CONNECT_S, None),
            name=pod.name,
            container=_CONTAINER,
            tail_lines=tail,
            follow=True,
            _preload_content=False,
        )
        for piece in answer.stream():
            yield piece.decode(errors="replace")

    def _ask(self, what: str, call: Any, **arguments: Any) -> Any:
        rights = f"ask for the rights `get` and `list` on pods and pods/log in namespace {self._namespace}"
        gone = "the pod is gone: open the run's page, which also shows logs that Kubeflow has kept"
        return ask(what, call, fixes={403: rights, 404: gone}, namespace=self._namespace, **arguments)


def matches(task: str, name: str, wanted: str) -> bool:
    """Tells whether a task is the one that is meant: by its name in the pipeline, its step, or its name for people."""
    plain = wanted.strip().lower()
    return plain in (task.lower(), task.lower().replace("-", "_"), name.lower())


def _step_pod(item: Any) -> StepPod | None:
    found = _STEP_OF.search((item.metadata.annotations or {}).get(_NODE, ""))
    if found is None:
        return None  # a driver, or not a step of ours
    started = item.status.start_time or item.metadata.creation_timestamp or datetime.fromtimestamp(0, UTC)
    return StepPod(item.metadata.name, found["task"], started, _reason(item.status))


def _reason(status: Any) -> str:
    """Returns why a pod ended or waits, as far as the cluster knows more than that it did."""
    for container in status.container_statuses or ():
        state = container.state
        for ended in (state.terminated, state.waiting) if state else ():
            if ended is not None and ended.reason and ended.reason not in _UNTOLD:
                words = f": {ended.message.strip().splitlines()[0]}" if ended.message else ""
                return f"{ended.reason}{words}"
    if status.reason:  # Evicted, and the like
        return f"{status.reason}: {status.message}" if status.message else str(status.reason)
    unschedulable = [c for c in status.conditions or () if c.type == "PodScheduled" and c.status == "False"]
    return f"{unschedulable[0].reason}: {unschedulable[0].message}" if unschedulable else ""
