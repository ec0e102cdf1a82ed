"""Component `segment_faces`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def segment_faces(
    recipe: str,
    context: str,
    pairs: dsl.Input[dsl.Dataset],
    faces: dsl.Output[dsl.Dataset],
) -> None:
    """Cut each person's face out of both frames with a promptable segmenter.

    The face box is the prompt; a mask that is empty, too small or spills over is dropped with that
    reason.

    Paper: sections 3.2, 3.3.2.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        pairs: From `curate_clips`.
        faces: Masked close-ups, portraits and their cutouts, of each person.
    """
    from visavis.steps.segment_faces import segment_faces as step

    inputs = {"pairs": pairs.path}
    faces.metadata.update(step(recipe, context, inputs, faces.path).summary())
