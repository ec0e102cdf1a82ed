"""What a run is: one typed recipe, the named recipes, and strict overrides.

A named recipe is a function that starts from another one and edits it, so that it says only what differs:
`smoke` (CI) -> `storybook` (the embedded default) -> `seedx` (the paper's scale). The classes of the sections
belong to the modules that obey them; here they are only put together.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visavis.data.chat_config import FullBodyConfig
from visavis.data.config import ConversationConfig, CurateConfig, DescribeConfig, SegmentConfig
from visavis.errors import VisavisError
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.drift import MonitorConfig
from visavis.files import sha256_bytes, write_atomic
from visavis.registry.config import GateConfig, RegisterConfig
from visavis.settings import read_yaml
from visavis.training.config import (
    AdaptConfig,
    DetokenizerStages,
    EncodeConfig,
    EngineConfig,
    MllmConfigs,
    MllmModelConfig,
    StageConfig,
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClipsConfig(_Section):
    """Where the clips come from.

    Attributes:
        source: Folder of clips. Empty: the clips are rendered before the run, from the two fields below.
        render_count: How many clips of the storybook world to render; 0 renders none.
        render_seed: Seed of the rendering; no person of any seed is one that the pack was trained on.
    """

    source: str = ""
    render_count: int = Field(0, ge=0)
    render_seed: int = Field(0, ge=0)


class Recipe(_Section):
    """The resolved configuration of a whole run, in the order in which the data goes through it.

    Attributes:
        name: Name of the recipe that this one started as.
        pack: Bundled pack by name, or the folder of one.
        seed: Seed of the training; `edit` hands a change of it on to every stage. What is drawn about the data
            (clips, split, captions, test items) has seeds of its own.
    """

    name: str
    pack: str
    seed: int = Field(0, ge=0)
    clips: ClipsConfig = ClipsConfig()
    curate: CurateConfig = CurateConfig()
    describe: DescribeConfig = DescribeConfig()
    segment: SegmentConfig = SegmentConfig()
    full_body: FullBodyConfig = FullBodyConfig()
    conversations: ConversationConfig = ConversationConfig()
    encode: EncodeConfig = EncodeConfig()
    engine: EngineConfig = EngineConfig()
    detokenizer: DetokenizerStages = DetokenizerStages()
    mllm_model: MllmModelConfig = MllmModelConfig()
    mllm: MllmConfigs = MllmConfigs()
    rounds: StageConfig = StageConfig(sets={"rounds": 1.0})
    adapt: AdaptConfig = AdaptConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    registration: RegisterConfig = RegisterConfig()
    monitor: MonitorConfig = MonitorConfig()

    def digest(self) -> str:
        """Returns the sha256 of the resolved recipe: equal recipes have equal digests."""
        return sha256_bytes(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode())

    def to_yaml(self) -> str:
        """Returns the recipe as YAML that `recipe_named` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def save(self, path: Path) -> None:
        """Writes the recipe as YAML, atomically."""
        write_atomic(path, self.to_yaml())


def edit(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Returns a recipe with some fields changed.

    Args:
        recipe: Where to start.
        changes: New values by dotted name, such as `{"mllm.pair.lr": 1e-4}`. A new `seed` becomes that of every
            stage of training, unless that stage's own is among the changes.

    Raises:
        VisavisError: If a field does not exist (the nearest is suggested) or a value does not fit.
    """
    values = recipe.model_dump(mode="json")
    if "seed" in changes:
        changes = {**_every_stage(seed=changes["seed"]), **changes}
    for key, value in changes.items():
        _put(values, key, value)
    return _validated(values)


def apply_overrides(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """Returns a recipe with the overrides of a command line applied.

    Args:
        recipe: Where to start.
        overrides: `KEY=VALUE` each; the key is dotted, the value is YAML (`3`, `true`, `[1, 2]`, `{a: 1}`).

    Raises:
        VisavisError: If an override is malformed, its key unknown or its value of the wrong kind.
    """
    changes: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise VisavisError(
                f"override {override!r} is not of the form KEY=VALUE", fix="write it like mllm.pair.lr=1e-4"
            )
        try:
            changes[key.strip()] = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            changes[key.strip()] = text
    return edit(recipe, changes)


def recipe_named(name: str) -> Recipe:
    """Returns a named recipe, or the one saved in a YAML file.

    Raises:
        VisavisError: If there is no such recipe (the nearest is suggested), or the file does not hold one.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if name.endswith((".yaml", ".yml")):
        return _read(Path(name))
    near = _nearest(name, RECIPES)
    hint = f"did you mean {near!r}? " if near else ""
    raise VisavisError(
        f"recipe {name!r} does not exist",
        fix=f"{hint}recipes: {', '.join(RECIPES)}; or give the path of a saved recipe.yaml",
    )


_STAGES = (
    "detokenizer.natural",
    "detokenizer.people",
    "mllm.reconstruct",
    "mllm.inpaint",
    "mllm.pair",
    "rounds",
    "adapt",
)


def _every_stage(**values: Any) -> dict[str, Any]:
    """Returns the same settings for every stage of training, by dotted name."""
    return {f"{stage}.{key}": value for stage in _STAGES for key, value in values.items()}


def smoke() -> Recipe:
    """A minute or two on 2 cores: every step runs, nothing is learned. For CI."""
    changes: dict[str, Any] = {
        "clips.render_count": 60,
        "curate.part_items": 640,
        "encode.pooled": True,
        **_every_stage(steps=4, batch_size=4, warmup=1, log_every=1),
        "adapt.max_samples": 8,
        "evaluate.max_single_round": 8,
        "evaluate.max_rounds": 8,
        "evaluate.max_ablation": 4,
        "evaluate.max_reconstruction": 8,
        "evaluate.max_retention": 2,
        "evaluate.max_prompted": 2,
        "evaluate.bootstrap_samples": 100,
        "registration.approval": "automatic",
    }
    return edit(Recipe(name="smoke", pack="storybook"), changes)


def storybook() -> Recipe:
    """The embedded default: a model that can be talked to, in minutes on 2 cores."""
    changes: dict[str, Any] = {
        "name": "storybook",
        "clips.render_count": 620,
        # A third for the test: enough chats of unseen people to tell 0.6 from 0.7.
        "conversations.shares": {"train": 0.60, "val": 0.04, "test": 0.36},
        **_every_stage(steps=80, batch_size=16, warmup=10, log_every=10, lr=1e-3),
        "detokenizer.people.steps": 200,
        **{f"mllm.{stage}.lr": 1.5e-3 for stage in ("reconstruct", "inpaint", "pair")},
        "mllm.inpaint.steps": 100,
        "mllm.pair.steps": 120,
        "rounds.steps": 350,
        "rounds.lr": 1.5e-3,
        "rounds.later_round_weight": 3.0,
        # Most chats are pairs, or the rounds make it forget how to keep a face: of all that a chat of rounds teaches
        # with its weighted pictures, a pair has a seventh.
        "rounds.sets": {"rounds": 0.4, "pair": 0.6},
        # The other chats keep the plain reply, so that who is who is still told from the picture.
        "rounds.plan_share": 0.85,
        # Long and fast enough to paint one possible face from blurred tokens instead of the mean of many.
        "adapt.steps": 350,
        "adapt.ema": 0.98,
        "adapt.own_share": 0.7,
        "adapt.max_samples": 1500,
        # From blurred tokens, fresh noise at each step paints whole faces where a deterministic path leaves smears.
        "detokenizer.solver": "stochastic",
        "detokenizer.sample_steps": 12,
        "evaluate.max_single_round": 200,
        "evaluate.max_rounds": 240,
        "evaluate.max_ablation": 120,
        "evaluate.max_reconstruction": 200,
        "evaluate.max_retention": 24,
        "evaluate.max_prompted": 40,
        "evaluate.bootstrap_samples": 2000,
    }
    return edit(smoke(), changes)


def seedx() -> Recipe:
    """The paper's scale: real clips, SEED-X's parts, GPUs. Needs `clips.source` and a downloaded pack."""
    changes: dict[str, Any] = {
        "name": "seedx",
        "pack": "seedx",
        "clips.render_count": 0,
        "curate.part_items": 4096,
        "curate.min_sharpness": 20.0,
        "curate.max_yaw": 60.0,
        "describe.question_person": "Describe this person's hair, face and clothes in short phrases between commas.",
        "engine.zero_stage": 3,
        **_every_stage(checkpoint_seconds=1200.0),
        "engine.precision": "bf16",
        "engine.accumulate": 2,
        "engine.activation_checkpointing": True,
        "mllm_model.lora.rank": 32,
        "encode.pooled": False,
        **_every_stage(steps=20_000, batch_size=48, warmup=500, lr=1e-4),
        # More pairs and averaged weights were measured on the small model only.
        "rounds.sets": {"rounds": 0.8, "pair": 0.2},
        "adapt.ema": 0.0,
        "adapt.max_samples": 20_000,
        "evaluate.max_single_round": 2000,
        "evaluate.max_rounds": 2000,
        "evaluate.max_ablation": 500,
        "evaluate.max_reconstruction": 2000,
        "evaluate.max_retention": 500,
        "evaluate.max_prompted": 500,
        "evaluate.prompt_set": "photos",
        "registration.approval": "required",
    }
    return edit(storybook(), changes)


RECIPES: dict[str, Callable[[], Recipe]] = {"smoke": smoke, "storybook": storybook, "seedx": seedx}


def field_names(recipe: Recipe) -> list[str]:
    """Returns the dotted names of all fields, sections included, in the order of the recipe."""
    return list(_names(recipe.model_dump(mode="json")))


def _names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place: Any = values
    for step in parents:
        place = place.get(step) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        near = _nearest(key, _names(values))
        hint = f"did you mean {near}? " if near else ""
        raise VisavisError(
            f"recipe {values['name']}: field {key!r} does not exist",
            fix=f"{hint}`visavis recipe show {values['name']}` lists all fields",
        )
    place[last] = value


def _nearest(word: str, choices: Iterable[str]) -> str | None:
    """Returns the choice that is spelled most alike; of those, one that ends in the same name comes first."""
    names = list(choices)
    ending = [name for name in names if name.rpartition(".")[2] == word.rpartition(".")[2]]
    for group, cutoff in ((ending, 0.4), (names, 0.6)):
        if near := difflib.get_close_matches(word, group, n=1, cutoff=cutoff):
            return near[0]
    return None


def _validated(values: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"])
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise VisavisError(
            f"recipe {values.get('name', '')}: {field} is {first['input']!r}: {message}",
            fix=f"change {field}; `visavis recipe show {values.get('name', 'storybook')}` shows the default",
        ) from error


def _read(path: Path) -> Recipe:
    title, absent = f"recipe file {path}", f"give an existing file, or one of: {', '.join(RECIPES)}"
    values = read_yaml(path, title=title, absent=absent, broken="save the recipe anew")
    if not isinstance(values, dict):
        raise VisavisError(
            f"recipe file {path} holds no mapping",
            fix="write one with `visavis recipe show storybook > recipe.yaml`",
        )
    return _validated(values)
