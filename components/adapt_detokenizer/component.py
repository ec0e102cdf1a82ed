"""Component `adapt_detokenizer`."""

from kfp import dsl

from components.handing_on import HANDED_ON
from components.images import TRAIN_IMAGE


@dsl.component(
    base_image=TRAIN_IMAGE,
    packages_to_install=[],
    install_kfp_package=False,
    task_config_passthroughs=HANDED_ON,
)
def adapt_detokenizer(
    recipe: str,
    context: str,
    conversations: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    mllm: dsl.Input[dsl.Model],
    detokenizer: dsl.Input[dsl.Model],
    adapted: dsl.Output[dsl.Model],
    job: dsl.Output[dsl.HTML],
    task_config: dsl.TaskConfig = None,
) -> None:
    """Tune the detokenizer briefly on the language model's own predicted tokens.

    Predicted tokens are smoother than true ones; after this the detokenizer expects them. Goes beyond
    the paper.

    Paper: section 3.1.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        conversations: From `build_conversations`.
        tokens: From `encode_images`.
        mllm: From `tune_rounds`.
        detokenizer: From `tune_detokenizer`.
        adapted: The detokenizer, used to what the language model predicts.
        job: How it went: attempts, GPU-hours and, where it was a job of the cluster, last lines and events.
        task_config: What Kubeflow hands on to the training job: resources, tolerations, selector, environment.
    """
    from visavis.launch.training import train_step

    inputs = {"conversations": conversations.path, "tokens": tokens.path}
    inputs |= {"mllm": mllm.path, "detokenizer": detokenizer.path}
    told = vars(task_config) if task_config else None
    made = train_step("adapt_detokenizer", recipe, context, inputs, adapted.path, job.path, told)
    adapted.metadata.update(made.summary())
