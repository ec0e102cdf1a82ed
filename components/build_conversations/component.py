"""Component `build_conversations`."""

from kfp import dsl

from components.images import TOOLS_IMAGE


@dsl.component(base_image=TOOLS_IMAGE, packages_to_install=[], install_kfp_package=False)
def build_conversations(
    recipe: str,
    context: str,
    pairs: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    faces: dsl.Input[dsl.Dataset],
    full_body: dsl.Input[dsl.Dataset],
    conversations: dsl.Output[dsl.Dataset],
) -> None:
    """Build the training, validation and test conversations, split by identity.

    Single-round sets for the stages and the three-round set by name; no person is in two splits.

    Paper: sections 3.2, 3.3.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        pairs: From `curate_clips`.
        captions: From `describe_clips`.
        faces: From `segment_faces`.
        full_body: From `make_full_body`.
        conversations: WebDataset shards, a Parquet index, a data card and a viewer page.
    """
    from visavis.steps.build_conversations import build_conversations as step

    inputs = {"pairs": pairs.path, "captions": captions.path, "faces": faces.path}
    inputs["full_body"] = full_body.path
    conversations.metadata.update(step(recipe, context, inputs, conversations.path).summary())
