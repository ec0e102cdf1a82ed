"""Component `preflight`."""

from kfp import dsl

from components.images import TOOLS_IMAGE


@dsl.component(base_image=TOOLS_IMAGE, packages_to_install=[], install_kfp_package=False)
def preflight(
    recipe: str,
    context: str,
    page: dsl.Output[dsl.HTML],
) -> None:
    """Look whether all is there that the run needs, before any GPU is taken.

    Bucket writable, secrets, custom resources and queues by name, the image by digest, MLflow: what the cluster file
    does not ask for is not looked at, so that on a machine of its own there is nothing to look at.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        page: What was looked at, and what came of it.
    """
    from visavis.launch.preflight import preflight as look

    look(recipe, context, page.path)
