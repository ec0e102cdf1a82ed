"""Component `promote_model`."""

from kfp import dsl

from components.images import TOOLS_IMAGE


@dsl.component(base_image=TOOLS_IMAGE, packages_to_install=[], install_kfp_package=False)
def promote_model(
    recipe: str,
    context: str,
    version: dsl.Input[dsl.Artifact],
    promotion: dsl.Output[dsl.Artifact],
) -> None:
    """Make a version that passed the gate the champion if `registration.approval` is automatic.

    If approval is required, the version stays the challenger until `visavis approve` and `visavis promote`.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        version: From `register_model`.
        promotion: `promotion.json`: promoted or not, and why.
    """
    from visavis.steps.promote_model import promote_model as step

    inputs = {"version": version.path}
    promotion.metadata.update(step(recipe, context, inputs, promotion.path).summary())
