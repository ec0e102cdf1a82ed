"""One arm of the paper's comparisons, on the data of a training run that is done."""

from kfp import dsl

from components.close_run.component import close_run
from components.score_arm.component import score_arm
from components.tune_detokenizer.component import tune_detokenizer
from components.tune_mllm.component import tune_mllm
from pipelines.tasks import shown_as


def _found(manifest: str, name: str) -> dsl.PipelineTask:
    return shown_as(dsl.importer(manifest, dsl.Dataset, reimport=True), name)


@dsl.pipeline(
    name="visavis-ablation",
    description="Tune a detokenizer and, if it is the MLLM that is compared, its three stages; score the result.",
)
def ablation(recipe: str, context: str, conversations: str, tokens: str, compares: str) -> None:
    """Runs one arm with one seed; the data are those of the run, so that all arms share them.

    Args:
        recipe: Resolved recipe of the arm as JSON.
        context: Store, run folder and tracker as JSON.
        conversations: URI of the manifest of `build_conversations`.
        tokens: URI of the manifest of `encode_images`.
        compares: What the arm is about: `mllm` or `detokenizer`.
    """
    common = {"recipe": recipe, "context": context}
    close = shown_as(close_run(**common), "Close the run")
    with dsl.ExitHandler(close, name="Arm"):
        encoded = _found(tokens, "Image tokens").output
        data = {**common, "conversations": _found(conversations, "Conversations").output, "tokens": encoded}
        painter = shown_as(tune_detokenizer(**data), "Tune detokenizer").outputs["detokenizer"]
        scored = {**common, "tokens": encoded, "detokenizer": painter}
        with dsl.If(compares == "mllm", name="MLLM"):
            first = shown_as(tune_mllm(**data, stage="reconstruct"), "Stage 1: reconstruct")
            second = tune_mllm(**data, stage="inpaint", mllm=first.outputs["tuned"])
            third = tune_mllm(
                **data, stage="pair", mllm=shown_as(second, "Stage 2: inpaint").outputs["tuned"]
            )
            tuned = shown_as(third, "Stage 3: pair").outputs["tuned"]
            shown_as(score_arm(**scored, mllm=tuned), "Score pictures of people")
        with dsl.Else(name="Detokenizer"):
            shown_as(score_arm(**scored), "Score reconstructions")


if __name__ == "__main__":
    from pathlib import Path

    from kfp.compiler import Compiler

    Compiler().compile(ablation, str(Path(__file__).with_suffix(".yaml")))
