"""What the tasks of all pipelines have in common: their name, where they run, when they are tried again."""

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.structures import ResourceSpec

from components.close_run.component import close_run
from components.cluster import CLUSTER
from components.preflight.component import preflight
from visavis.cluster import Profile
from visavis.cluster.profiles import QUEUE_LABEL, SHM, SHM_VOLUME

_LONGEST_BACKOFF_SECONDS = 3600
_SLACK_SECONDS = 3600
"""For a job to be deleted, begun again, and its result to be found."""


def shown_as(task: dsl.PipelineTask, name: str) -> dsl.PipelineTask:
    """Names a task for people, places it by the profile of its step, and switches off Kubeflow's cache.

    That cache sees neither the code that a component imports nor the pack; the steps' own store sees both.
    """
    task.set_display_name(name).set_caching_options(False)
    if task.container_spec is None:  # an importer runs in no pod of its own
        return task
    _environment(task)
    step = task.component_spec.name.replace("-", "_")
    profile = CLUSTER.profile_of(step)
    _try_again(task, profile)
    if profile is None:
        return task
    if CLUSTER.training.run_as == "trainjob" and task.component_spec.task_config_passthroughs:
        _resources(task, profile)  # handed on to the job for which the task waits
        waits = profile.seconds + round(CLUSTER.training.queue_hours * 3600) + _SLACK_SECONDS
        return kubernetes.set_timeout(task, waits)
    _resources(task, profile)
    kubernetes.set_timeout(task, profile.seconds)
    if profile.queue:
        kubernetes.add_pod_label(task, QUEUE_LABEL, profile.queue)
    if profile.shm:
        kubernetes.empty_dir_mount(task, SHM_VOLUME, SHM, medium="Memory", size_limit=profile.shm)
    return task


def after_preflight(common: Mapping[str, Any]) -> Callable[[dsl.PipelineTask], dsl.PipelineTask]:
    """Adds the look at what must be there; what comes back makes the first tasks of a pipeline wait for it.

    Args:
        common: Arguments `recipe` and `context` of every task.
    """
    looking = shown_as(preflight(**common), "Look whether all is there")
    return lambda task: task.after(looking)


def closing(common: Mapping[str, Any]) -> dsl.PipelineTask:
    """Adds the task that closes a run, to be handed to `dsl.ExitHandler`.

    Args:
        common: Arguments `recipe` and `context` of every task.
    """
    return shown_as(close_run(**common, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER), "Close the run")


def _environment(task: dsl.PipelineTask) -> None:
    """Gives a task what it needs to reach the store and MLflow, by the names of secrets; values stay in the cluster."""
    for name, keys in CLUSTER.environment.secrets.items():
        kubernetes.use_secret_as_env(task, secret_name=name, secret_key_to_env=keys, optional=True)
    for name, keys in CLUSTER.environment.config_maps.items():
        kubernetes.use_config_map_as_env(
            task, config_map_name=name, config_map_key_to_env=keys, optional=True
        )


def _resources(task: dsl.PipelineTask, profile: Profile) -> None:
    """Sets where a task runs and with what; requests are as high as limits, as those of training jobs are.

    The task's own setters inspect the whole call stack, each of them: seconds for a pipeline, in a large process.
    """
    task.container_spec.resources = ResourceSpec(
        cpu_request=profile.cpu,
        cpu_limit=profile.cpu,
        memory_request=profile.memory,
        memory_limit=profile.memory,
        accelerator_type=profile.accelerator or None,
        accelerator_count=str(profile.accelerators) if profile.accelerator else None,
    )
    for label, value in profile.selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in profile.tolerations:
        kubernetes.add_toleration(task, **toleration.manifest())


def _try_again(task: dsl.PipelineTask, profile: Profile | None) -> None:
    """Lets Kubeflow try again what failed, since a pod may be lost with its node.

    Kubeflow cannot tell such a failure from another: its launcher ends with 1 whatever the step ends with. The step
    can: one that failed by a mistake of its user says so in the run's folder and fails at once when it is tried again.
    """
    retries, training = CLUSTER.retries, CLUSTER.training
    count = max(retries.count, training.spot_restarts) if profile and profile.spot else retries.count
    if count:
        task.set_retry(
            count,
            backoff_duration=f"{retries.backoff_seconds}s",
            backoff_factor=retries.factor,
            backoff_max_duration=f"{_LONGEST_BACKOFF_SECONDS}s",
        )
