"""The promotion pipeline: a version is judged anew beside the champion of today, and promoted if it may be."""

from kfp import dsl

from components.evaluate_champion.component import evaluate_champion
from components.evaluate_version.component import evaluate_version
from components.gate_model.component import gate_model
from components.promote_version.component import promote_version
from pipelines.tasks import after_preflight, closing, shown_as


@dsl.pipeline(
    name="visavis-promote",
    description="Score a version and the champion on the same people, judge, promote.",
)
def promote(recipe: str, context: str, version: str, tokens: str) -> None:
    """Judges a version and makes it the champion if the gate lets it pass and whoever must approve has done so.

    A version that was compared with a champion of before becomes promotable again by this.

    Args:
        recipe: Resolved recipe as JSON (`Recipe.model_dump_json()`): its rules and its approval count.
        context: Store, run folder and tracker as JSON (`RunContext.model_dump_json()`).
        version: `models:/NAME/NUMBER` or `models:/NAME@ALIAS`.
        tokens: URI of the manifest of `encode_images` in the run whose test people are shown.
    """
    common = {"recipe": recipe, "context": context}
    close = closing(common)
    with dsl.ExitHandler(close, name="Promote"):
        ready = after_preflight(common)
        people = shown_as(ready(dsl.importer(tokens, dsl.Dataset, reimport=True)), "Test people").output
        scoring = evaluate_version(**common, version=version, tokens=people)
        scorecard = shown_as(scoring, "Evaluate version").outputs["scorecard"]
        rivalling = evaluate_champion(**common, tokens=people, scorecard=scorecard)
        champion = shown_as(rivalling, "Evaluate champion").outputs["champion"]
        judging = gate_model(**common, scorecard=scorecard, champion=champion)
        decision = shown_as(judging, "Gate").outputs["decision"]
        shown_as(promote_version(**common, version=version, decision=decision), "Promote version")


if __name__ == "__main__":
    from pathlib import Path

    from kfp.compiler import Compiler

    Compiler().compile(promote, str(Path(__file__).with_suffix(".yaml")))
