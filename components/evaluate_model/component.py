"""Component `evaluate_model`."""

from kfp import dsl

from components.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, packages_to_install=[], install_kfp_package=False)
def evaluate_model(
    recipe: str,
    context: str,
    conversations: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    reconstruct: dsl.Input[dsl.Model],
    inpaint: dsl.Input[dsl.Model],
    pair: dsl.Input[dsl.Model],
    mllm: dsl.Input[dsl.Model],
    tuned_detokenizer: dsl.Input[dsl.Model],
    detokenizer: dsl.Input[dsl.Model],
    scorecard: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Score the model on people it has not seen: identity, words, pictures, the right person in a chat.

    Every figure has a 95 % interval.

    Paper: section 4.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        conversations: From `build_conversations`.
        tokens: From `encode_images`.
        reconstruct: Stage 1 of `tune_mllm`, for the comparison of the stages.
        inpaint: Stage 2.
        pair: Stage 3.
        mllm: From `tune_rounds`.
        tuned_detokenizer: From `tune_detokenizer`.
        detokenizer: From `adapt_detokenizer`.
        scorecard: `scorecard.json`, the figures and grids, and the model folder that was scored.
        report: The page of it all, pictures included.
    """
    from visavis.steps.evaluate_model import evaluate_model as step

    inputs = {
        "conversations": conversations.path,
        "tokens": tokens.path,
        "reconstruct": reconstruct.path,
        "inpaint": inpaint.path,
        "pair": pair.path,
        "mllm": mllm.path,
        "tuned_detokenizer": tuned_detokenizer.path,
        "detokenizer": detokenizer.path,
    }
    scorecard.metadata.update(step(recipe, context, inputs, scorecard.path, report.path).summary())
