"""Component `adapt_detokenizer`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def adapt_detokenizer(
    recipe: str,
    context: str,
    conversations: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    mllm: dsl.Input[dsl.Model],
    detokenizer: dsl.Input[dsl.Model],
    adapted: dsl.Output[dsl.Model],
) -> None:
    """Tune the detokenizer briefly on the language model's own predicted tokens.

    Predicted tokens are smoother than true ones; after this the detokenizer expects them. Goes beyond
    the paper.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        conversations: From `build_conversations`.
        tokens: From `encode_images`.
        mllm: From `tune_rounds`.
        detokenizer: From `tune_detokenizer`.
        adapted: The detokenizer, used to what the language model predicts.
    """
    from visavis.steps.adapt_detokenizer import adapt_detokenizer as step

    inputs = {
        "conversations": conversations.path,
        "tokens": tokens.path,
        "mllm": mllm.path,
        "detokenizer": detokenizer.path,
    }
    adapted.metadata.update(step(recipe, context, inputs, adapted.path).summary())
