"""Component `gate_model`."""

from kfp import dsl

from components.images import TOOLS_IMAGE


@dsl.component(base_image=TOOLS_IMAGE, packages_to_install=[], install_kfp_package=False)
def gate_model(
    recipe: str,
    context: str,
    scorecard: dsl.Input[dsl.Artifact],
    champion: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Artifact],
) -> None:
    """Judge the scorecard by the rules of `gate.rules`.

    A model that fails does not fail the run: the decision names the rule, and the version gets no
    alias.

    Paper: section 4.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        scorecard: From `evaluate_model`.
        champion: From `evaluate_champion`.
        decision: `decision.json`: passed or not, rule by rule.
    """
    from visavis.steps.gate_model import gate_model as step

    inputs = {"scorecard": scorecard.path, "champion": champion.path}
    decision.metadata.update(step(recipe, context, inputs, decision.path).summary())
