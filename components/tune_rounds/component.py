"""Component `tune_rounds`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def tune_rounds(
    recipe: str,
    context: str,
    conversations: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    mllm: dsl.Input[dsl.Model],
    tuned: dsl.Output[dsl.Model],
) -> None:
    """Tune on three-round chats: a picture from words, then close-ups by name.

    All rounds of a chat are trained in one forward pass.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        conversations: From `build_conversations`.
        tokens: From `encode_images`.
        mllm: From the last stage of `tune_mllm`.
        tuned: The model that chats about two people by name.
    """
    from visavis.steps.tune_rounds import tune_rounds as step

    inputs = {"conversations": conversations.path, "tokens": tokens.path, "mllm": mllm.path}
    tuned.metadata.update(step(recipe, context, inputs, tuned.path).summary())
