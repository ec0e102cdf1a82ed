"""The monitoring pipeline: the champion on fresh clips, against its own past. To be scheduled."""

from kfp import dsl

from components.encode_images.component import encode_images
from components.monitor_champion.component import monitor_champion
from pipelines.curation import conversations_from_clips
from pipelines.tasks import closing, shown_as


@dsl.pipeline(
    name="visavis-monitor",
    description="Curate fresh clips, score the champion on them, tell of drift.",
)
def monitor(recipe: str, context: str) -> None:
    """Runs the steps from fresh clips to a report of drift.

    Args:
        recipe: Resolved recipe as JSON (`Recipe.model_dump_json()`); its hash is in the run's tags.
        context: Store, run folder and tracker as JSON (`RunContext.model_dump_json()`).
    """
    common = {"recipe": recipe, "context": context}
    close = closing(common)
    with dsl.ExitHandler(close, name="Monitor"):
        conversations = conversations_from_clips(common)
        encoded = encode_images(**common, conversations=conversations)
        tokens = shown_as(encoded, "Encode images").outputs["tokens"]
        shown_as(monitor_champion(**common, tokens=tokens), "Monitor champion")


if __name__ == "__main__":
    from pathlib import Path

    from kfp.compiler import Compiler

    Compiler().compile(monitor, str(Path(__file__).with_suffix(".yaml")))
