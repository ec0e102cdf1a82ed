"""Component `tune_rounds`."""

from kfp import dsl

from components.handing_on import HANDED_ON
from components.images import TRAIN_IMAGE


@dsl.component(
    base_image=TRAIN_IMAGE,
    packages_to_install=[],
    install_kfp_package=False,
    task_config_passthroughs=HANDED_ON,
)
def tune_rounds(
    recipe: str,
    context: str,
    conversations: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    mllm: dsl.Input[dsl.Model],
    tuned: dsl.Output[dsl.Model],
    job: dsl.Output[dsl.HTML],
    task_config: dsl.TaskConfig = None,
) -> None:
    """Tune on three-round chats: a picture from words, then close-ups by name.

    All rounds of a chat are trained in one forward pass.

    Paper: section 3.3.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        conversations: From `build_conversations`.
        tokens: From `encode_images`.
        mllm: From the last stage of `tune_mllm`.
        tuned: The model that chats about two people by name.
        job: How it went: attempts, GPU-hours and, where it was a job of the cluster, last lines and events.
        task_config: What Kubeflow hands on to the training job: resources, tolerations, selector, environment.
    """
    from visavis.launch.training import train_step

    inputs = {"conversations": conversations.path, "tokens": tokens.path, "mllm": mllm.path}
    told = vars(task_config) if task_config else None
    made = train_step("tune_rounds", recipe, context, inputs, tuned.path, job.path, told)
    tuned.metadata.update(made.summary())
