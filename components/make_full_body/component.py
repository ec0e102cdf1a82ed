"""Component `make_full_body`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def make_full_body(
    recipe: str,
    context: str,
    pairs: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    faces: dsl.Input[dsl.Dataset],
    targets: dsl.Output[dsl.Dataset],
) -> None:
    """Paint each person from head to toe and keep the pictures in which ArcFace knows them again.

    Without `full_body.enabled` the result is empty.

    Paper: sections 4.1, Suppl. 8.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        pairs: From `curate_clips`.
        captions: From `describe_clips`.
        faces: From `segment_faces`.
        targets: Full-body pictures that were kept.
    """
    from visavis.steps.make_full_body import make_full_body as step

    inputs = {"pairs": pairs.path, "captions": captions.path, "faces": faces.path}
    targets.metadata.update(step(recipe, context, inputs, targets.path).summary())
