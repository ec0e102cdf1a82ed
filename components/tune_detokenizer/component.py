"""Component `tune_detokenizer`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def tune_detokenizer(
    recipe: str,
    context: str,
    conversations: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    detokenizer: dsl.Output[dsl.Model],
) -> None:
    """Tune the diffusion transformer to paint from 64 image tokens: natural pictures, then people.

    Starts from the pack's text-to-image model. Checkpoints outlive a kill; resume is exact.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        conversations: From `build_conversations`.
        tokens: From `encode_images`.
        detokenizer: The detokenizer after natural pictures and after people.
    """
    from visavis.steps.tune_detokenizer import tune_detokenizer as step

    inputs = {"conversations": conversations.path, "tokens": tokens.path}
    detokenizer.metadata.update(step(recipe, context, inputs, detokenizer.path).summary())
