"""Component `tune_mllm`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def tune_mllm(
    recipe: str,
    context: str,
    stage: str,
    conversations: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    tuned: dsl.Output[dsl.Model],
    mllm: dsl.Input[dsl.Model] = None,
) -> None:
    """One stage of personalisation: reconstruct, inpaint or pair.

    Stage N starts from the checkpoint of stage N-1 and its manifest says so.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        stage: `reconstruct`, `inpaint` or `pair`.
        conversations: From `build_conversations`.
        tokens: From `encode_images`.
        tuned: The multimodal language model after this stage.
        mllm: The stage before; left out in the first stage, which starts from the pack.
    """
    from visavis.steps.tune_mllm import tune_mllm as step

    inputs = {"conversations": conversations.path, "tokens": tokens.path}
    if mllm is not None:
        inputs["mllm"] = mllm.path
    tuned.metadata.update(step(recipe, context, inputs, tuned.path, stage=stage).summary())
