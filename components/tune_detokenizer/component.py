"""Component `tune_detokenizer`."""

from kfp import dsl

from components.handing_on import HANDED_ON
from components.images import TRAIN_IMAGE


@dsl.component(
    base_image=TRAIN_IMAGE,
    packages_to_install=[],
    install_kfp_package=False,
    task_config_passthroughs=HANDED_ON,
)
def tune_detokenizer(
    recipe: str,
    context: str,
    conversations: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    detokenizer: dsl.Output[dsl.Model],
    job: dsl.Output[dsl.HTML],
    task_config: dsl.TaskConfig = None,
) -> None:
    """Tune the diffusion transformer to paint from 64 image tokens: natural pictures, then people.

    Starts from the pack's text-to-image model. Checkpoints outlive a kill; resume is exact.

    Paper: section 3.1.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        conversations: From `build_conversations`.
        tokens: From `encode_images`.
        detokenizer: The detokenizer after natural pictures and after people.
        job: How it went: attempts, GPU-hours and, where it was a job of the cluster, last lines and events.
        task_config: What Kubeflow hands on to the training job: resources, tolerations, selector, environment.
    """
    from visavis.launch.training import train_step

    inputs = {"conversations": conversations.path, "tokens": tokens.path}
    told = vars(task_config) if task_config else None
    made = train_step("tune_detokenizer", recipe, context, inputs, detokenizer.path, job.path, told)
    detokenizer.metadata.update(made.summary())
