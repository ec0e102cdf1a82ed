"""What the tasks of all pipelines have in common."""

from kfp import dsl


def shown_as(task: dsl.PipelineTask, name: str) -> dsl.PipelineTask:
    """Names a task for people, and switches off Kubeflow's cache.

    That cache sees neither the code that a component imports nor the pack; the steps' own store sees both.
    """
    return task.set_display_name(name).set_caching_options(False)
