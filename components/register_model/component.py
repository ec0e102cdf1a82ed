"""Component `register_model`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def register_model(
    recipe: str,
    context: str,
    scorecard: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    version: dsl.Output[dsl.Artifact],
) -> None:
    """Register the scored model as an MLflow model version; past the gate, it becomes `challenger`.

    Equal weights and recipe make no second version, so a retry is harmless.

    Paper: section 4.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        scorecard: From `evaluate_model`.
        decision: From `gate_model`.
        version: `version.json`: name, number and tags of the model version.
    """
    from visavis.steps.register_model import register_model as step

    inputs = {"scorecard": scorecard.path, "decision": decision.path}
    version.metadata.update(step(recipe, context, inputs, version.path).summary())
