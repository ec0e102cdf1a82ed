"""What became of each task of a run, as Kubeflow's API tells it.

Kubeflow 2.17 lists every node of the run's workflow, drivers and groups too, under the name of its task; tasks of a
loop come once for each round. Here they are put together again, in the order of the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Any

FAILED, RUNNING, SUCCEEDED, WAITING = "FAILED", "RUNNING", "SUCCEEDED", "WAITING"
OVER = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
"""States that a run does not leave by itself."""
_FIRST_YEAR = 2000
"""A time before it is Kubeflow's way to say that there is none yet."""
# The state of several nodes is the first of these that one of them has.
_ORDER = ("FAILED", "RUNNING", "PENDING", "CANCELING", "CANCELED", "PAUSED", "SUCCEEDED", "SKIPPED")


@dataclass(frozen=True)
class TaskState:
    """One row of a run.

    Attributes:
        key: Name of the task in the pipeline.
        name: Name for people.
        state: Kubeflow's, or `WAITING`.
        started: When it began.
        ended: When it ended.
        done: How many of its rounds are done.
        rounds: How many were begun; more than one in a loop.
        error: What Kubeflow says went wrong.
    """

    key: str
    name: str
    state: str = WAITING
    started: datetime | None = None
    ended: datetime | None = None
    done: int = 0
    rounds: int = 0
    error: str = ""

    def seconds(self, now: datetime) -> float | None:
        """Returns how long it took, or has taken so far; None if it has not begun."""
        if self.started is None:
            return None
        return max(((self.ended or now) - self.started).total_seconds(), 0.0)


def moment(value: datetime | None) -> datetime | None:
    """Returns a time of the API, or None where it holds the beginning of all time."""
    if value is None or value.year < _FIRST_YEAR:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def state_of(run: Any) -> str:
    """Returns the state of a run; a run that has just been made has none."""
    return str(run.state or "PENDING")


def tasks_of(run: Any, spec: Mapping[str, Any]) -> list[TaskState]:
    """Returns the tasks of a run that do work, in the order of its pipeline.

    Args:
        run: As the API returns it.
        spec: Its pipeline, from `packages.spec_of`.
    """
    nodes: dict[str, list[Any]] = {}
    for detail in (run.run_details.task_details if run.run_details else None) or ():
        nodes.setdefault(str(detail.display_name), []).append(detail)
    known = list(_leaves(spec, spec.get("root", {}).get("dag", {})))
    return [_state(key, name, nodes.get(key, [])) for key, name in known]


def _leaves(spec: Mapping[str, Any], dag: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    tasks = dag.get("tasks", {})
    order = TopologicalSorter({key: sorted(task.get("dependentTasks", [])) for key, task in tasks.items()})
    for key in order.static_order():
        task = tasks[key]
        inner = spec.get("components", {}).get(task["componentRef"]["name"], {}).get("dag")
        if inner is not None:
            yield from _leaves(spec, inner)
        else:
            yield key, str(task.get("taskInfo", {}).get("name", key))


def _state(key: str, name: str, nodes: Sequence[Any]) -> TaskState:
    if not nodes:
        return TaskState(key, name)
    states = [str(node.state or RUNNING) for node in nodes]
    state = next((one for one in _ORDER if one in states), states[0])
    starts = [time for node in nodes if (time := moment(node.start_time)) is not None]
    ends = [moment(node.end_time) for node in nodes]
    finished = [time for time in ends if time is not None]
    return TaskState(
        key,
        name,
        state,
        min(starts, default=None),
        max(finished, default=None) if state in OVER and len(finished) == len(ends) else None,
        sum(one in OVER for one in states),
        len(nodes),
        next((text for node in nodes if (text := _error(node))), ""),
    )


def _error(node: Any) -> str:
    if node.error and node.error.message:
        return str(node.error.message)
    for status in reversed(node.state_history or ()):
        if status.error and status.error.message:
            return str(status.error.message)
    return ""
