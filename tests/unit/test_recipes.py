from __future__ import annotations

from pathlib import Path

import pytest

from visavis.errors import VisavisError
from visavis.recipes import (
    RECIPES,
    apply_overrides,
    edit,
    field_names,
    recipe_named,
    seedx,
    smoke,
    storybook,
)


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_is_valid_and_carries_its_name(name: str) -> None:
    assert recipe_named(name).name == name


def test_recipes_start_from_one_another() -> None:
    assert storybook().curate == smoke().curate
    assert seedx().conversations == storybook().conversations
    assert seedx().clips.render_count == 0, "the paper's clips are real ones"


def test_an_override_changes_that_field_only() -> None:
    before = storybook()
    after = apply_overrides(before, ["mllm.pair.lr=3e-5"])
    assert after.mllm.pair.lr == 3e-5
    assert edit(after, {"mllm.pair.lr": before.mllm.pair.lr}) == before
    assert before.mllm.pair.lr != 3e-5, "the recipe it started from stays as it was"


def test_the_seed_reaches_every_stage_of_training_but_one_that_has_its_own() -> None:
    recipe = apply_overrides(storybook(), ["mllm.pair.seed=3", "seed=7"])
    stages = (
        recipe.detokenizer.natural,
        recipe.detokenizer.people,
        recipe.mllm.reconstruct,
        recipe.mllm.inpaint,
    )
    assert {stage.seed for stage in (*stages, recipe.rounds, recipe.adapt)} == {7}
    assert recipe.mllm.pair.seed == 3
    assert recipe.conversations == storybook().conversations
    assert recipe.evaluate == storybook().evaluate


@pytest.mark.parametrize(
    ("override", "field", "expected"),
    [
        ("seed=7", "seed", 7),
        ("clips.source=/data/my clips", "clips.source", "/data/my clips"),
        ("clips.source=", "clips.source", ""),
        ("encode.pooled=true", "encode.pooled", True),
        ("describe.openings=[a pair, two people]", "describe.openings", ("a pair", "two people")),
        ("rounds.sets={rounds: 0.5, pair: 0.5}", "rounds.sets", {"rounds": 0.5, "pair": 0.5}),
    ],
)
def test_values_are_read_as_yaml(override: str, field: str, expected: object) -> None:
    value: object = apply_overrides(smoke(), [override])
    for step in field.split("."):
        value = getattr(value, step)
    assert value == expected


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("mllm.pair.learning_rate", "mllm.pair"),
        ("mllm.pare.lr", "mllm.pair.lr"),
        ("round.lr", "rounds.lr"),
        ("train.stage3.lr", ".lr"),
        ("sead", "seed"),
        ("clips.sorce", "clips.source"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(VisavisError) as caught:
        apply_overrides(storybook(), [f"{key}=1"])
    assert repr(key) in caught.value.message
    assert "did you mean" in caught.value.fix
    assert nearest in caught.value.fix


def test_an_unknown_key_far_from_all_others_points_to_the_list() -> None:
    with pytest.raises(VisavisError, match="recipe show") as caught:
        apply_overrides(storybook(), ["zzzzqqqq=1"])
    assert "did you mean" not in caught.value.fix


def test_a_solver_of_flows_is_refused_for_another_objective() -> None:
    with pytest.raises(VisavisError, match="set solver to euler, or objective to flow"):
        apply_overrides(recipe_named("storybook"), ["detokenizer.objective=epsilon"])
    changes = ["detokenizer.objective=epsilon", "detokenizer.solver=euler"]
    assert apply_overrides(recipe_named("storybook"), changes).detokenizer.objective == "epsilon"


@pytest.mark.parametrize("override", ["mllm.pair.lr", "=3", " "])
def test_an_override_without_key_or_value_is_explained(override: str) -> None:
    with pytest.raises(VisavisError, match="KEY=VALUE"):
        apply_overrides(storybook(), [override])


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("mllm.pair.lr=fast", "mllm.pair.lr", "'fast'"),
        ("rounds.batch_size=0", "rounds.batch_size", "0"),
        ("clips.render_seed=-5", "clips.render_seed", "-5"),
        ("mllm=3", "mllm", "3"),
        ("conversations.rounds_target=wrong", "conversations.rounds_target", "'wrong'"),
    ],
)
def test_a_value_that_does_not_fit_is_named(override: str, field: str, value: str) -> None:
    with pytest.raises(VisavisError) as caught:
        apply_overrides(storybook(), [override])
    assert field in caught.value.message
    assert value in caught.value.message
    assert field in caught.value.fix


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(VisavisError, match="'storybok' does not exist") as caught:
        recipe_named("storybok")
    assert "did you mean 'storybook'?" in caught.value.fix


def test_the_digest_follows_the_content() -> None:
    assert storybook().digest() == storybook().digest()
    assert storybook().digest() != apply_overrides(storybook(), ["seed=1"]).digest()


def test_a_saved_recipe_reads_back_equal(tmp_path: Path) -> None:
    recipe = apply_overrides(storybook(), ["adapt.steps=3"])
    path = tmp_path / "recipe.yaml"
    recipe.save(path)
    assert recipe_named(str(path)) == recipe
    assert recipe_named(str(path)).digest() == recipe.digest()


def test_a_resolved_recipe_travels_as_json() -> None:
    recipe = storybook()
    assert type(recipe).model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("content", ["- a list", "a: [", "name: x\npack: storybook\nnonsense: 1"])
def test_a_file_that_holds_no_recipe_is_explained(tmp_path: Path, content: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(VisavisError):
        recipe_named(str(path))


def test_a_missing_recipe_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match="does not exist"):
        recipe_named(str(tmp_path / "none.yaml"))


def test_field_names_are_dotted_and_complete() -> None:
    names = field_names(smoke())
    assert {"seed", "mllm", "mllm.pair", "mllm.pair.lr", "clips.source"} <= set(names)
    assert len(names) == len(set(names))
