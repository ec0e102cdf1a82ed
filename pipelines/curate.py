"""The curation pipeline: from any pile of clips to a data set of conversations."""

from kfp import dsl

from pipelines.curation import conversations_from_clips
from pipelines.tasks import closing


@dsl.pipeline(
    name="visavis-curate",
    description="Find the same two people in both ends of each clip, describe them, cut them out, build chats.",
)
def curate(recipe: str, context: str) -> None:
    """Runs the steps from clips to conversations.

    Args:
        recipe: Resolved recipe as JSON (`Recipe.model_dump_json()`); its hash is in the run's tags.
        context: Store, run folder and tracker as JSON (`RunContext.model_dump_json()`).
    """
    common = {"recipe": recipe, "context": context}
    close = closing(common)
    with dsl.ExitHandler(close, name="Curate"):
        conversations_from_clips(common)


if __name__ == "__main__":
    from pathlib import Path

    from kfp.compiler import Compiler

    Compiler().compile(curate, str(Path(__file__).with_suffix(".yaml")))
