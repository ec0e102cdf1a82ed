"""What Kubeflow hands on from a task that trains to its training job, as `dsl.TaskConfig`."""

from kfp import dsl

from components.cluster import CLUSTER

_IN_OWN_POD = CLUSTER.training.run_as == "process"

HANDED_ON = [
    *(
        dsl.TaskConfigPassthrough(field=field, apply_to_task=_IN_OWN_POD)
        for field in (
            dsl.TaskConfigField.RESOURCES,
            dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
            dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
        )
    ),
    dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True),
]
"""A step that only waits for a job takes no GPU and need not be near one; its environment is the job's too."""
