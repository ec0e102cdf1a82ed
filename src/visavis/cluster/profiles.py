"""Accelerator profiles: on which nodes a pod runs, with what, out of which queue, and for how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SHM = "/dev/shm"
SHM_VOLUME = "shm"
"""Volume of shared memory; the TrainingRuntime of our chart calls it so too, and its size is changed by name."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$"
_DOMAIN_NAME = r"^[a-z0-9A-Z]([a-z0-9A-Z.\-_]*[a-z0-9A-Z])?(/[a-z0-9A-Z]([a-z0-9A-Z.\-_]*[a-z0-9A-Z])?)?$"


class Strict(BaseModel):
    """A section of the file; what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Toleration(Strict):
    """Lets a pod onto nodes that keep others away.

    Attributes:
        key: Key of the taint; empty with `Exists` tolerates all.
        operator: Whether the value must be equal, or the taint only exist.
        value: Value of the taint.
        effect: Effect of the taint; empty: every one.
    """

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    @model_validator(mode="after")
    def _means_something(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError("operator Exists takes no value")
        if self.operator == "Equal" and not self.key:
            raise ValueError("operator Equal needs a key")
        return self

    def manifest(self) -> dict[str, str]:
        """Returns it as Kubernetes writes it."""
        return {name: value for name, value in self.model_dump().items() if value}


class Profile(Strict):
    """One kind of pod.

    Attributes:
        selector: Labels that a node must have.
        tolerations: Taints that a node may have.
        cpu: Cores of a pod, as Kubernetes writes them.
        memory: Memory of a pod, as Kubernetes writes it.
        accelerator: Resource name of the accelerator; empty: none.
        accelerators: Accelerators of a pod.
        nodes: Pods that share one training.
        queue: Kueue's LocalQueue; empty: none.
        shm: Size of /dev/shm, which is memory of the pod; empty: the container runtime's 64 MiB.
        spot: Whether such nodes may be taken away at any time: then a job is begun again more often.
        usd_per_hour: Price of one pod for an hour, its accelerators included.
        hours: Longest time that a step or a job may take.
    """

    selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    cpu: str = Field("1", pattern=_QUANTITY)
    memory: str = Field("2Gi", pattern=_QUANTITY)
    accelerator: str = Field("", pattern=rf"^$|{_DOMAIN_NAME}")
    accelerators: int = Field(0, ge=0)
    nodes: int = Field(1, ge=1)
    queue: str = ""
    shm: str = Field("", pattern=rf"^$|{_QUANTITY}")
    spot: bool = False
    usd_per_hour: float = Field(0.0, ge=0)
    hours: float = Field(24.0, gt=0)

    @model_validator(mode="after")
    def _counts_what_it_names(self) -> Profile:
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError("accelerator and accelerators go together: give both or none")
        return self

    @property
    def seconds(self) -> int:
        """Longest time of a step or a job in seconds."""
        return round(self.hours * 3600)

    @property
    def gpus(self) -> int:
        """Accelerators of all pods of a job."""
        return self.accelerators * self.nodes

    def resources(self) -> dict[str, str]:
        """Returns what a pod asks for; text, because Kubernetes' clients turn 8 into 8.0."""
        more = {self.accelerator: str(self.accelerators)} if self.accelerator else {}
        return {"cpu": self.cpu, "memory": self.memory, **more}


@dataclass(frozen=True)
class Placement:
    """Where the pods of a job go, and with what.

    Attributes:
        resources: What a pod asks for.
        selector: Labels that a node must have.
        tolerations: Taints that a node may have, as Kubernetes writes them.
        env: Environment of the training.
    """

    resources: Mapping[str, str]
    selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile, task: Mapping[str, Any] | None = None) -> Placement:
        """Returns that of a profile, or what Kubeflow hands on of the task, where it does.

        Args:
            profile: The profile.
            task: `dsl.TaskConfig` of the task as a mapping: what the compiled pipeline set, or an operator since then.
        """
        task = task or {}
        limits = (task.get("resources") or {}).get("limits") or {}
        return cls(
            resources={name: str(value) for name, value in limits.items()} or profile.resources(),
            selector=task.get("node_selector") or profile.selector,
            tolerations=tuple(task.get("tolerations") or (t.manifest() for t in profile.tolerations)),
            env={row["name"]: row["value"] for row in task.get("env") or () if row.get("value")},
        )
