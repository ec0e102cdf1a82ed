"""Component `tune_mllm`."""

from kfp import dsl

from components.handing_on import HANDED_ON
from components.images import TRAIN_IMAGE


@dsl.component(
    base_image=TRAIN_IMAGE,
    packages_to_install=[],
    install_kfp_package=False,
    task_config_passthroughs=HANDED_ON,
)
def tune_mllm(
    recipe: str,
    context: str,
    stage: str,
    conversations: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    tuned: dsl.Output[dsl.Model],
    job: dsl.Output[dsl.HTML],
    mllm: dsl.Input[dsl.Model] = None,
    task_config: dsl.TaskConfig = None,
) -> None:
    """One stage of personalisation: reconstruct, inpaint or pair.

    Stage N starts from the checkpoint of stage N-1 and its manifest says so.

    Paper: section 3.2.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        stage: `reconstruct`, `inpaint` or `pair`.
        conversations: From `build_conversations`.
        tokens: From `encode_images`.
        tuned: The multimodal language model after this stage.
        job: How it went: attempts, GPU-hours and, where it was a job of the cluster, last lines and events.
        mllm: The stage before; left out in the first stage, which starts from the pack.
        task_config: What Kubeflow hands on to the training job: resources, tolerations, selector, environment.
    """
    from visavis.launch.training import train_step

    inputs = {"conversations": conversations.path, "tokens": tokens.path}
    if mllm is not None:
        inputs["mllm"] = mllm.path
    told = vars(task_config) if task_config else None
    made = train_step("tune_mllm", recipe, context, inputs, tuned.path, job.path, told, stage=stage)
    tuned.metadata.update(made.summary())
