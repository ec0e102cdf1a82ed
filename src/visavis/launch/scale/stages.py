"""What each stage of a recipe computes."""

from __future__ import annotations

from dataclasses import dataclass

from visavis.launch.scale.costs import Assumptions, round_tokens
from visavis.launch.scale.shapes import Cost, connector_step, denoiser_cost, encoder_cost
from visavis.models.mllm import Mllm
from visavis.recipes import Recipe
from visavis.training.config import OptimConfig

ROUNDS = 3
SEEDX_VIEWS = 2
"""How often the agent of SEED-X reads a picture that a user shows."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: Its name in the recipe.
        items: Items of all of its steps.
        operations: Operations of all of them.
        words: The arithmetic, for people.
    """

    name: str
    items: int
    operations: float
    words: str


def stages(recipe: Recipe, model: Mllm, row: Cost, checkpointing: bool, assumed: Assumptions) -> list[Stage]:
    """Returns the stages of a recipe in their order.

    Args:
        recipe: Steps, batches and views.
        model: The MLLM.
        row: Cost of one row of `rounds.max_length` tokens.
        checkpointing: Whether the LLaMA's layers are computed again in the backward pass.
        assumed: Words of a round, pictures of the data.
    """
    token = row.operations(checkpointing) / recipe.rounds.max_length
    picture = connector_step(model).total
    painted = denoiser_cost("pixart")[1].operations(False)
    encoded = encoder_cost()[1].forward
    single = round_tokens(assumed.words, recipe.mllm_model.views or SEEDX_VIEWS)
    chat = round_tokens(assumed.words, 1, ROUNDS)

    def paint(name: str, config: OptimConfig) -> Stage:
        return _stage(name, config, painted, f"{painted / 1e12:.1f} T a picture")

    def talk(name: str, config: OptimConfig, tokens: int, pictures: int) -> Stage:
        each = tokens * token + pictures * picture
        return _stage(
            name, config, each, f"{tokens} tokens x {token / 1e9:.1f} G + {pictures} x {picture / 1e9:.0f} G"
        )

    adapt = paint("adapt", recipe.adapt)
    own = recipe.adapt.max_samples * chat * row.step.forward / recipe.rounds.max_length
    own_words = f"; before it {recipe.adapt.max_samples:,} chats through the MLLM, forward only"
    return [
        Stage(
            "encode",
            assumed.pictures,
            assumed.pictures * encoded,
            f"{encoded / 1e12:.1f} T a picture, forward only",
        ),
        paint("detokenizer.natural", recipe.detokenizer.natural),
        paint("detokenizer.people", recipe.detokenizer.people),
        talk("mllm.reconstruct", recipe.mllm.reconstruct, single, 1),
        talk("mllm.inpaint", recipe.mllm.inpaint, single, 1),
        talk("mllm.pair", recipe.mllm.pair, single, 1),
        talk("rounds", recipe.rounds, chat, ROUNDS),
        Stage("adapt", adapt.items, adapt.operations + own, adapt.words + own_words),
    ]


def _stage(name: str, config: OptimConfig, each: float, words: str) -> Stage:
    items = config.steps * config.batch_size
    return Stage(name, items, items * each, f"{config.steps:,} steps x {config.batch_size} x ({words})")
