"""Component `score_arm`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def score_arm(
    recipe: str,
    context: str,
    tokens: dsl.Input[dsl.Dataset],
    detokenizer: dsl.Input[dsl.Model],
    scorecard: dsl.Output[dsl.Artifact],
    mllm: dsl.Input[dsl.Model] = None,
    adapted: dsl.Input[dsl.Model] = None,
) -> None:
    """Score one arm of the paper's comparisons: how it reconstructs and, with an MLLM, whom it paints.

    Paper: sections 3.1 and 3.2.

    Args:
        recipe: Resolved recipe of the arm as JSON.
        context: Store, run folder and tracker as JSON.
        tokens: From `encode_images`.
        detokenizer: From `tune_detokenizer`.
        scorecard: `scorecard.json` and the scores by item; sections that were not measured are empty.
        mllm: From `tune_mllm` or `tune_rounds`; left out where only the detokenizer is compared.
        adapted: From `adapt_detokenizer`: paints the people instead, where the adaptation is compared.
    """
    from visavis.steps.score_arm import score_arm as step

    inputs = {"tokens": tokens.path, "detokenizer": detokenizer.path}
    more = {"mllm": mllm, "adapted": adapted}
    inputs |= {name: found.path for name, found in more.items() if found is not None}
    scorecard.metadata.update(step(recipe, context, inputs, scorecard.path).summary())
