"""Component `list_clips`."""

from kfp import dsl

from components.images import TOOLS_IMAGE


@dsl.component(base_image=TOOLS_IMAGE, packages_to_install=[], install_kfp_package=False)
def list_clips(
    recipe: str,
    context: str,
    listing: dsl.Output[dsl.Dataset],
) -> list[str]:
    """List the clips and pictures of the source and divide them into parts.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        listing: What there is to curate, a file for each part.

    Returns:
        The numbers of the parts.
    """
    from visavis.steps.list_clips import list_clips as step

    manifest = step(recipe, context, {}, listing.path)
    listing.metadata.update(manifest.summary())
    return [str(number) for number in range(int(manifest.metrics["parts"]))]
