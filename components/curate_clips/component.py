"""Component `curate_clips`."""

from kfp import dsl

from components.images import TOOLS_IMAGE


@dsl.component(base_image=TOOLS_IMAGE, packages_to_install=[], install_kfp_package=False)
def curate_clips(
    recipe: str,
    context: str,
    judged: dsl.Input[list[dsl.Dataset]],
    pairs: dsl.Output[dsl.Dataset],
) -> None:
    """Put the judged parts together and keep the pairs that show the same two people.

    Every other clip gets a ledger row with its reason: no video, truncated, too short, not two people,
    people who do not match, too far apart for one square, a cut, a near-duplicate. The result does not
    depend on the parts.

    Paper: sections 3.3.2, 4.1.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        judged: From `curate_part`, one for each part.
        pairs: Pairs of frames with the same two people.
    """
    from visavis.steps.curate_clips import curate_clips as step

    parts = {f"part {number}": part.path for number, part in enumerate(judged)}
    pairs.metadata.update(step(recipe, context, parts, pairs.path).summary())
