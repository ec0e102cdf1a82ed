"""Component `evaluate_version`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def evaluate_version(
    recipe: str,
    context: str,
    version: str,
    tokens: dsl.Input[dsl.Dataset],
    scorecard: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Score a registered version on people it has not seen: the test split of a run's data.

    Versions that are scored on the same tokens are scored on the same items.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        version: `models:/NAME/NUMBER` or `models:/NAME@ALIAS`.
        tokens: From `encode_images`.
        scorecard: `scorecard.json`, the scores by item, and which version it was.
        report: The page of it all.
    """
    from visavis.steps.evaluate_version import evaluate_version as step

    inputs = {"tokens": tokens.path}
    scored = step(recipe, context, inputs, scorecard.path, version, report.path)
    scorecard.metadata.update(scored.summary())
