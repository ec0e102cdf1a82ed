"""Component `evaluate_champion`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def evaluate_champion(
    recipe: str,
    context: str,
    tokens: dsl.Input[dsl.Dataset],
    scorecard: dsl.Input[dsl.Artifact],
    champion: dsl.Output[dsl.Artifact],
) -> None:
    """Score the registry's champion on the items of the candidate, in the same run.

    Without a champion there is nothing to do, and the result says so.

    Paper: section 4.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        tokens: From `encode_images`.
        scorecard: From `evaluate_model`: the candidate.
        champion: `champion.json`: which version it is; its `scorecard.json`; `differences.json`: candidate minus
            champion, paired by item.
    """
    from visavis.steps.evaluate_champion import evaluate_champion as step

    inputs = {"tokens": tokens.path, "scorecard": scorecard.path}
    champion.metadata.update(step(recipe, context, inputs, champion.path).summary())
