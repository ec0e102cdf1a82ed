"""Component `promote_version`."""

from kfp import dsl

from components.images import TOOLS_IMAGE


@dsl.component(base_image=TOOLS_IMAGE, packages_to_install=[], install_kfp_package=False)
def promote_version(
    recipe: str,
    context: str,
    version: str,
    decision: dsl.Input[dsl.Artifact],
    promotion: dsl.Output[dsl.Artifact],
) -> None:
    """Make a registered version the champion if it passed the gate beside the champion of today.

    If approval is required, somebody must have given it: `visavis approve`.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        version: `models:/NAME/NUMBER` or `models:/NAME@ALIAS`.
        decision: From `gate_model`.
        promotion: `promotion.json`: promoted or not, and why.
    """
    from visavis.steps.promote_version import promote_version as step

    inputs = {"decision": decision.path}
    promotion.metadata.update(step(recipe, context, inputs, promotion.path, version).summary())
