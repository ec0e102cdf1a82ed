"""Component `encode_images`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def encode_images(
    recipe: str,
    context: str,
    conversations: dsl.Input[dsl.Dataset],
    tokens: dsl.Output[dsl.Dataset],
) -> None:
    """Run the frozen image encoder and the autoencoder once over every picture.

    Content-addressed: a picture that is used twice, or that an earlier run encoded, is encoded once.

    Paper: section 3.1.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        conversations: From `build_conversations`.
        tokens: Image tokens and autoencoder latents of every picture.
    """
    from visavis.steps.encode_images import encode_images as step

    inputs = {"conversations": conversations.path}
    tokens.metadata.update(step(recipe, context, inputs, tokens.path).summary())
