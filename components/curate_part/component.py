"""Component `curate_part`."""

from kfp import dsl

from components.images import TOOLS_IMAGE


@dsl.component(base_image=TOOLS_IMAGE, packages_to_install=[], install_kfp_package=False)
def curate_part(
    recipe: str,
    context: str,
    part: str,
    listing: dsl.Input[dsl.Dataset],
    judged: dsl.Output[dsl.Dataset],
) -> None:
    """Decode the first and last frame of each clip of one part, and look for the same two people in both.

    Each clip is judged by itself, so any number of parts may be worked on at once. A killed one goes on where it
    was. Bad files never stop it.

    Paper: sections 3.3.2, 4.1.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        part: Number of the part.
        listing: From `list_clips`.
        judged: What was found in each clip of the part.
    """
    from visavis.steps.curate_part import curate_part as step

    judged.metadata.update(step(recipe, context, {"listing": listing.path}, judged.path, part).summary())
