"""The evaluation pipeline: any registered version on the test people of a run that is done."""

from kfp import dsl

from components.evaluate_version.component import evaluate_version
from pipelines.tasks import after_preflight, closing, shown_as


@dsl.pipeline(
    name="visavis-evaluate",
    description="Score a registered version on the test people of a run.",
)
def evaluate(recipe: str, context: str, version: str, tokens: str) -> None:
    """Scores a version; versions that are scored on the same tokens are scored on the same items.

    Args:
        recipe: Resolved recipe as JSON (`Recipe.model_dump_json()`): the one of the run.
        context: Store, run folder and tracker as JSON (`RunContext.model_dump_json()`).
        version: `models:/NAME/NUMBER` or `models:/NAME@ALIAS`.
        tokens: URI of the manifest of `encode_images` in the run whose test people are shown.
    """
    common = {"recipe": recipe, "context": context}
    close = closing(common)
    with dsl.ExitHandler(close, name="Evaluate"):
        ready = after_preflight(common)
        people = shown_as(ready(dsl.importer(tokens, dsl.Dataset, reimport=True)), "Test people").output
        shown_as(evaluate_version(**common, version=version, tokens=people), "Evaluate version")


if __name__ == "__main__":
    from pathlib import Path

    from kfp.compiler import Compiler

    Compiler().compile(evaluate, str(Path(__file__).with_suffix(".yaml")))
