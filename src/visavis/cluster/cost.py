"""What a run took of a cluster, in GPU-hours and in money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis.cluster.config import Cluster
from visavis.files import read_json, write_json

GPU_HOURS, USD = "cost.gpu_hours", "cost.usd"


@dataclass(frozen=True)
class Cost:
    """What was taken.

    Attributes:
        gpu_hours: Hours of single accelerators.
        usd: Price of the pods, accelerators included.
    """

    gpu_hours: float = 0.0
    usd: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.gpu_hours + other.gpu_hours, self.usd + other.usd)

    def metrics(self) -> dict[str, float]:
        """Returns it under the names that MLflow shows."""
        return {GPU_HOURS: round(self.gpu_hours, 6), USD: round(self.usd, 6)}


def cost_of(cluster: Cluster, step: str, seconds: float, *, nodes: int | None = None) -> Cost:
    """Returns what a step took.

    Args:
        cluster: Knows the profile of the step; without one, nothing is counted.
        step: Name of the step.
        seconds: How long its pods held their nodes.
        nodes: Pods; by default those of the profile.
    """
    profile = cluster.profile_of(step)
    if profile is None:
        return Cost()
    pod_hours = seconds / 3600 * (profile.nodes if nodes is None else nodes)
    return Cost(pod_hours * profile.accelerators, pod_hours * profile.usd_per_hour)


def note_attempt(run_dir: Path, step: str, attempt: Mapping[str, Any]) -> None:
    """Adds one attempt of a training job to those of its step: `seconds`, `nodes`, `outcome`, `job`."""
    path = run_dir / "jobs" / f"{step}.json"
    known = read_json(path) if path.is_file() else []
    write_json(path, [*known, dict(attempt)])


def attempts_of(run_dir: Path, step: str) -> list[dict[str, Any]]:
    """Returns the attempts that `note_attempt` kept."""
    path = run_dir / "jobs" / f"{step}.json"
    return list(read_json(path)) if path.is_file() else []


def costs_of_run(cluster: Cluster, run_dir: Path, timings: Iterable[Mapping[str, Any]]) -> dict[str, Cost]:
    """Returns what each step took, failed attempts of jobs included; what was reused took nothing.

    Args:
        cluster: The cluster of the run.
        run_dir: Folder of the run.
        timings: Its steps, as in `timings.json`.
    """
    costs: dict[str, Cost] = {}
    for timing in timings:
        step = timing["step"]
        if attempts := attempts_of(run_dir, step):
            took = (cost_of(cluster, step, row["seconds"], nodes=row["nodes"]) for row in attempts)
            costs[step] = sum(took, Cost())
        elif timing["status"] != "reused":
            costs[step] = cost_of(cluster, step, timing["seconds"], nodes=1)
    return costs
