"""The training pipeline: from clips of two people to a registered model that one can talk to."""

from kfp import dsl

from components.adapt_detokenizer.component import adapt_detokenizer
from components.encode_images.component import encode_images
from components.evaluate_champion.component import evaluate_champion
from components.evaluate_model.component import evaluate_model
from components.gate_model.component import gate_model
from components.promote_model.component import promote_model
from components.register_model.component import register_model
from components.tune_detokenizer.component import tune_detokenizer
from components.tune_mllm.component import tune_mllm
from components.tune_rounds.component import tune_rounds
from pipelines.curation import conversations_from_clips
from pipelines.tasks import closing, shown_as


@dsl.pipeline(
    name="visavis-train",
    description="Curate clips, tune the models in stages, score, gate, register and promote the result.",
)
def train(recipe: str, context: str) -> None:
    """Runs the whole method.

    Args:
        recipe: Resolved recipe as JSON (`Recipe.model_dump_json()`); its hash is in the run's tags.
        context: Store, run folder and tracker as JSON (`RunContext.model_dump_json()`).
    """
    common = {"recipe": recipe, "context": context}
    close = closing(common)
    with dsl.ExitHandler(close, name="Train"):
        conversations = conversations_from_clips(common)
        encoded = encode_images(**common, conversations=conversations)
        tokens = shown_as(encoded, "Encode images").outputs["tokens"]
        data = {**common, "conversations": conversations, "tokens": tokens}

        painter = shown_as(tune_detokenizer(**data), "Tune detokenizer").outputs["detokenizer"]
        stage1 = shown_as(tune_mllm(**data, stage="reconstruct"), "Stage 1: reconstruct").outputs["tuned"]
        stage2 = shown_as(tune_mllm(**data, stage="inpaint", mllm=stage1), "Stage 2: inpaint").outputs[
            "tuned"
        ]
        stage3 = shown_as(tune_mllm(**data, stage="pair", mllm=stage2), "Stage 3: pair").outputs["tuned"]
        chatty = shown_as(tune_rounds(**data, mllm=stage3), "Tune rounds").outputs["tuned"]
        adapting = adapt_detokenizer(**data, mllm=chatty, detokenizer=painter)
        adapted = shown_as(adapting, "Adapt detokenizer").outputs["adapted"]

        scoring = evaluate_model(
            **data,
            reconstruct=stage1,
            inpaint=stage2,
            pair=stage3,
            mllm=chatty,
            tuned_detokenizer=painter,
            detokenizer=adapted,
        )
        scorecard = shown_as(scoring, "Evaluate").outputs["scorecard"]
        rivalling = evaluate_champion(**common, tokens=tokens, scorecard=scorecard)
        champion = shown_as(rivalling, "Evaluate champion").outputs["champion"]
        judging = gate_model(**common, scorecard=scorecard, champion=champion)
        decision = shown_as(judging, "Gate").outputs["decision"]
        registering = register_model(**common, scorecard=scorecard, decision=decision)
        version = shown_as(registering, "Register").outputs["version"]
        shown_as(promote_model(**common, version=version), "Promote")


if __name__ == "__main__":
    from pathlib import Path

    from kfp.compiler import Compiler

    Compiler().compile(train, str(Path(__file__).with_suffix(".yaml")))
