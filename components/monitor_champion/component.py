"""Component `monitor_champion`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def monitor_champion(
    recipe: str,
    context: str,
    tokens: dsl.Input[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
) -> None:
    """Score the champion on fresh inputs, compare it with its own past, and tell a webhook of drift.

    Its past is the scorecard of its release, and that of the last look. Figures of the true pictures tell whether it
    is the inputs that changed.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        tokens: From `encode_images`, of fresh clips.
        report: `drift.json`: each figure then and now; `scorecard.json`.
    """
    from visavis.steps.monitor_champion import monitor_champion as step

    inputs = {"tokens": tokens.path}
    report.metadata.update(step(recipe, context, inputs, report.path).summary())
