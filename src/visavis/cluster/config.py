"""The file that says what a cluster is like; without one, everything runs in the process that asks for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from visavis.cluster.profiles import Profile, Strict
from visavis.settings import read_yaml, validated

FILE = "VISAVIS_CLUSTER"
"""Environment variable with the file that pipelines are compiled for; without it, the one beside them."""


Variable: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Training(Strict):
    """How the steps that train are run.

    Attributes:
        run_as: `process`: in the step's own pod (or on this machine); `trainjob`: as a Kubeflow TrainJob, for which
            the step waits.
        processes: Processes of a pod; 0: one for each accelerator, at least one.
        runtime: TrainingRuntime of the jobs, `<release>-train` of our chart.
        namespace: Where the jobs go; empty: where the step runs.
        poll_seconds: Time between two looks at a job.
        start_minutes: Longest time until all pods of a job run, once its queue has let it in.
        queue_hours: Longest time that it may stand in a queue.
        restarts: How often a job that was taken away or stopped is begun again; from its last checkpoint.
        spot_restarts: The same for profiles of spot nodes.
        backoff_seconds: Wait before the first of these; it doubles each time, up to ten minutes.
        keep_failed: Whether a failed job is left for people to look at, until its run is closed.
    """

    run_as: Literal["process", "trainjob"] = "process"
    processes: int = Field(0, ge=0)
    runtime: str = Field("visavis-train", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    namespace: str = ""
    poll_seconds: float = Field(10.0, gt=0)
    start_minutes: float = Field(30.0, gt=0)
    queue_hours: float = Field(24.0, gt=0)
    restarts: int = Field(3, ge=0)
    spot_restarts: int = Field(20, ge=0)
    backoff_seconds: float = Field(30.0, ge=0)
    keep_failed: bool = False

    def processes_on(self, profile: Profile | None) -> int:
        """Returns how many processes of a pod share a training: one for each accelerator, if nothing else is said."""
        return self.processes or max(1, profile.accelerators if profile else 1)


class Retries(Strict):
    """How Kubeflow tries a step again whose pod was lost.

    Attributes:
        count: How often.
        backoff_seconds: Wait before the first time.
        factor: How the wait grows.
        not_again_seconds: How long a step that failed by a mistake of its user fails at once when it is tried again.
            It covers the waits above and little more, so that a person who has mended things is not held up.
    """

    count: int = Field(2, ge=0)
    backoff_seconds: int = Field(60, ge=0)
    factor: float = Field(2.0, ge=1)
    not_again_seconds: int = Field(0, ge=0)


class Needs(Strict):
    """What must be there before a pipeline takes a GPU; what is empty is not looked at.

    Attributes:
        bucket: `s3://` prefix or folder that must be writable.
        secrets: Secrets by name, all in the namespace of the run.
        kinds: Custom resources, as `trainjobs.v1alpha1.trainer.kubeflow.org`.
        queues: Kueue's LocalQueues by name.
        queue_api: API of the Kueue that is installed.
        digests: Whether the images must be named by digest.
        tracker: Whether MLflow must answer.
    """

    bucket: str = ""
    secrets: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    queue_api: str = Field("kueue.x-k8s.io/v1beta2", pattern="^[^/]+/[^/]+$")
    digests: bool = False
    tracker: bool = False


class Environment(Strict):
    """Environment variables of every step, from what lies in the namespace of the run; values never pass through here.

    What is not there is left out: a role of the cloud may take the place of a key. List under `needs.secrets` what
    must be there.

    Attributes:
        secrets: Secret to its keys, each to the variable that it becomes.
        config_maps: ConfigMap to its keys, in the same way.
    """

    secrets: dict[str, dict[str, Variable]] = Field(default_factory=dict)
    config_maps: dict[str, dict[str, Variable]] = Field(default_factory=dict)


class Cluster(Strict):
    """All of it; the default is this machine.

    Attributes:
        profiles: Kinds of pods by name.
        default: Profile of the steps that `steps` does not name; empty: none is set.
        steps: Step to the name of its profile; of a step that trains, that of its job.
        parts: Parts of the curation that are worked on at a time; 0: all.
        training: How the steps that train are run.
        environment: Environment variables of every step.
        retries: How Kubeflow tries a step again.
        needs: What must be there first.
        webhook: Address that is told how a run ended; signed if `VISAVIS_WEBHOOK_SECRET` is set.
        run_link: Page of a run for people; `{run}` stands for Kubeflow's id of it.
    """

    profiles: dict[str, Profile] = Field(default_factory=dict)
    default: str = ""
    steps: dict[str, str] = Field(default_factory=dict)
    parts: int = Field(0, ge=0)
    training: Training = Training()
    environment: Environment = Environment()
    retries: Retries = Retries()
    needs: Needs = Needs()
    webhook: str = ""
    run_link: str = ""

    @model_validator(mode="after")
    def _knows_its_profiles(self) -> Cluster:
        for step, name in {"default": self.default, **self.steps}.items():
            if name and name not in self.profiles:
                raise ValueError(f"{step} names profile {name!r}; profiles: {', '.join(self.profiles)}")
        return self

    def profile_of(self, step: str) -> Profile | None:
        """Returns the profile of a step, that of `tune_mllm` for `tune_mllm_pair`; None if it has none."""
        near = [name for name in self.steps if step == name or step.startswith(f"{name}_")]
        name = self.steps[max(near, key=len)] if near else self.default
        return self.profiles.get(name)


def read_cluster(path: Path) -> Cluster:
    """Reads the YAML file of a cluster.

    Raises:
        VisavisError: If there is no such file, or a field is wrong.
    """
    title, absent = f"cluster file {path}", f"give an existing file, or unset {FILE}"
    values = read_yaml(path, title=title, absent=absent, broken="begin with pipelines/cluster.yaml") or {}
    fix = "docs/cost.md lists the fields; pipelines/cluster.yaml has an example of each"
    return validated(Cluster, values, title=title, fix=fix)


def bundled_cluster(beside: Path) -> Cluster:
    """Returns the cluster that pipelines are compiled for: that of `VISAVIS_CLUSTER`, else `cluster.yaml`.

    Args:
        beside: Folder of the pipelines.
    """
    return read_cluster(Path(os.environ.get(FILE) or beside / "cluster.yaml"))
