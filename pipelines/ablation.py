"""One arm of the paper's comparisons, on the data of a training run that is done."""

from kfp import dsl

from components.adapt_detokenizer.component import adapt_detokenizer
from components.encode_images.component import encode_images
from components.score_arm.component import score_arm
from components.tune_detokenizer.component import tune_detokenizer
from components.tune_mllm.component import tune_mllm
from components.tune_rounds.component import tune_rounds
from pipelines.tasks import closing, shown_as


@dsl.pipeline(
    name="visavis-ablation",
    description="Tune a detokenizer and, if the arm has one, an MLLM; score the result.",
)
def ablation(recipe: str, context: str, conversations: str, compares: str) -> None:
    """Runs one arm with one seed on the conversations of the run; image tokens are reused if the arm reads the same.

    Args:
        recipe: Resolved recipe of the arm as JSON.
        context: Store, run folder and tracker as JSON.
        conversations: URI of the manifest of `build_conversations`.
        compares: What the arm is about: `detokenizer`, `mllm` or `adaptation`.
    """
    common = {"recipe": recipe, "context": context}
    close = closing(common)
    with dsl.ExitHandler(close, name="Arm"):
        found = dsl.importer(conversations, dsl.Dataset, reimport=True)
        chats = shown_as(found, "Conversations").output
        encoding = encode_images(**common, conversations=chats)
        tokens = shown_as(encoding, "Encode images").outputs["tokens"]
        data = {**common, "conversations": chats, "tokens": tokens}
        painter = shown_as(tune_detokenizer(**data), "Tune detokenizer").outputs["detokenizer"]
        scored = {**common, "tokens": tokens, "detokenizer": painter}
        with dsl.If(compares == "detokenizer", name="Detokenizer"):
            shown_as(score_arm(**scored), "Score reconstructions")
        with dsl.Else(name="MLLM"):
            first = shown_as(tune_mllm(**data, stage="reconstruct"), "Stage 1: reconstruct")
            second = tune_mllm(**data, stage="inpaint", mllm=first.outputs["tuned"])
            third = tune_mllm(
                **data, stage="pair", mllm=shown_as(second, "Stage 2: inpaint").outputs["tuned"]
            )
            tuned = shown_as(third, "Stage 3: pair").outputs["tuned"]
            with dsl.If(compares == "mllm", name="Stages"):
                shown_as(score_arm(**scored, mllm=tuned), "Score pictures of people")
            with dsl.Else(name="Adaptation"):
                chatty = shown_as(tune_rounds(**data, mllm=tuned), "Tune rounds").outputs["tuned"]
                adapting = adapt_detokenizer(**data, mllm=chatty, detokenizer=painter)
                adapted = shown_as(adapting, "Adapt detokenizer").outputs["adapted"]
                shown_as(score_arm(**scored, mllm=chatty, adapted=adapted), "Score adapted pictures")


if __name__ == "__main__":
    from pathlib import Path

    from kfp.compiler import Compiler

    Compiler().compile(ablation, str(Path(__file__).with_suffix(".yaml")))
