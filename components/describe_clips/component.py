"""Component `describe_clips`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def describe_clips(
    recipe: str,
    context: str,
    pairs: dsl.Input[dsl.Dataset],
    captions: dsl.Output[dsl.Dataset],
) -> None:
    """Caption the first frame of each pair, name both people and bind each name to a face.

    Only captions with exactly two names are kept; the order in which they name people is random with
    respect to left and right.

    Paper: section 3.3.2.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        pairs: From `curate_clips`.
        captions: Captions with two names, each bound to a face.
    """
    from visavis.steps.describe_clips import describe_clips as step

    inputs = {"pairs": pairs.path}
    captions.metadata.update(step(recipe, context, inputs, captions.path).summary())
