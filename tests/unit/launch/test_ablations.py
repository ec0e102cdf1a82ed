"""The paper's comparisons: what the arms share, what the seeds change, and what is written of it."""

from __future__ import annotations

import importlib
import io
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from visavis.evaluation.comparisons import CLAIMS
from visavis.files import read_json, write_json
from visavis.launch import ablations
from visavis.launch.ablations import run_ablations
from visavis.launch.arms import ARMS_OF, arm_recipe, arms, claim_results
from visavis.launch.local import RunResult
from visavis.recipes import Recipe, edit, recipe_named
from visavis.steps.framework import Manifest, RunContext
from visavis.steps.keys import resolve_section
from visavis.tracking import client_for, start_parent

RECIPE = recipe_named("storybook")
ARMS = {arm.name: arm for arm in arms(RECIPE)}
DATA_STEPS = ("curate_clips", "describe_clips", "segment_faces", "build_conversations", "encode_images")
STAGES = ("reconstruct", "inpaint", "pair")

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Returns the part of a recipe that enters the key of a step."""

    def of(step: str, recipe: Recipe, **more: str) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def note(name: str, body: Any, recipe: str, context: str, *rest: Any, **_: Any) -> None:
            seen.update(resolve_section(json.loads(recipe), rest[2]))

        module = importlib.import_module(f"visavis.steps.{step}")
        monkeypatch.setattr(module, "run_step", note)
        getattr(module, step)(recipe.model_dump_json(), "", {}, "", **more)
        return seen

    return of


def test_every_claim_has_its_two_arms() -> None:
    assert set(ARMS_OF) == {claim.claim_id for claim in CLAIMS}
    assert {name for pair in ARMS_OF.values() for name in pair} == set(ARMS)


def test_arms_train_the_mllm_for_equally_many_steps() -> None:
    def total(recipe: Recipe) -> int:
        return sum(getattr(recipe.mllm, stage).steps for stage in STAGES)

    assert {total(arm_recipe(RECIPE, arm, 0)) for arm in ARMS.values()} == {total(RECIPE)}
    assert total(RECIPE) > 0
    direct = arm_recipe(RECIPE, ARMS["direct"], 0).mllm
    assert (direct.reconstruct.steps, direct.inpaint.steps) == (0, 0)
    assert direct.pair.sets == {"pair": 1.0}


def test_arms_differ_from_the_recipe_in_one_thing() -> None:
    assert arm_recipe(RECIPE, ARMS["staged"], RECIPE.seed) == RECIPE
    direct, text = (arm_recipe(RECIPE, ARMS[name], 1) for name in ("direct", "direct_text"))
    assert edit(text, {"mllm.pair.keep_identical_text": False}) == direct
    untrained, unet = (arm_recipe(RECIPE, ARMS[name], 1).detokenizer for name in ("dit_untrained", "unet"))
    assert (untrained.denoiser, unet.denoiser) == ("dit", "unet")
    for stage in ("natural", "people"):
        assert getattr(untrained, stage) == getattr(unet, stage)


def test_a_recipe_that_asks_with_the_text_is_compared_without_it_too() -> None:
    recipe = edit(RECIPE, {"mllm.pair.keep_identical_text": True})
    by_name = {arm.name: arm_recipe(recipe, arm, 0).mllm.pair.keep_identical_text for arm in arms(recipe)}
    assert (by_name["direct"], by_name["direct_text"]) == (False, True)


def test_seeds_reach_every_stage(settings: Settings) -> None:
    changed = arm_recipe(RECIPE, ARMS["staged"], 7)
    stages = [changed.detokenizer.natural, changed.detokenizer.people]
    stages += [getattr(changed.mllm, stage) for stage in STAGES]
    assert {stage.seed for stage in stages} == {7}
    assert settings("tune_detokenizer", changed) != settings("tune_detokenizer", RECIPE)
    for stage in STAGES:
        assert settings("tune_mllm", changed, stage=stage) != settings("tune_mllm", RECIPE, stage=stage)


@pytest.mark.parametrize("step", DATA_STEPS)
def test_neither_seed_nor_arm_changes_the_data(step: str, settings: Settings) -> None:
    expected = settings(step, RECIPE)
    alike = [arm for arm in ARMS.values() if step != "encode_images" or "encode.pooled" not in arm.changes]
    assert len(alike) > 8
    assert all(settings(step, arm_recipe(RECIPE, arm, 5)) == expected for arm in alike)


def test_what_arms_have_in_common_is_done_once(settings: Settings) -> None:
    def of(step: str, name: str, **more: str) -> dict[str, Any]:
        return settings(step, arm_recipe(RECIPE, ARMS[name], 2), **more)

    shared = of("tune_detokenizer", "staged")
    assert of("tune_detokenizer", "direct") == of("tune_detokenizer", "direct_text") == shared
    assert shared != of("tune_detokenizer", "unet") != of("tune_detokenizer", "dit_untrained") != shared
    for stage in ("reconstruct", "inpaint"):
        direct = of("tune_mllm", "direct", stage=stage)
        assert of("tune_mllm", "direct_text", stage=stage) == direct
    assert of("tune_mllm", "direct_text", stage="pair") != of("tune_mllm", "direct", stage="pair")
    assert of("score_arm", "direct_text") != of("score_arm", "direct"), "an arm is asked as it was trained"


def scorecard(identity: float | None, psnr: float) -> dict[str, Any]:
    def figure(value: float | None) -> dict[str, Any]:
        return {"value": value, "ci95": None, "n": 0 if value is None else 8}

    rebuilt = {"psnr_db": psnr, "psnr_db_faces_before": psnr - 2, "psnr_db_faces_after": psnr - 1}
    return {
        "identity": {"arcface_single_round": figure(identity), "detection_rate": figure(identity and 0.5)},
        "reconstruction": {name: figure(value) for name, value in rebuilt.items()},
        "counts": {"single_round": 8, "people": 4, "reconstruction": 8},
    }


LEVELS: Mapping[str, tuple[float | None, float]] = {
    "staged": (0.30, 20.0),
    "direct": (0.10, 20.0),
    "direct_text": (0.09, 20.0),
    "cosine": (0.20, 20.0),
    "new_pool": (0.15, 20.0),
    "new_resampler": (0.15, 20.0),
    "adapted": (0.40, 20.0),
    "unadapted": (0.30, 20.0),
    "dit_untrained": (None, 17.0),
    "unet": (None, 18.0),
    "unet_stage2": (None, 19.0),
    "unpooled": (None, 21.0),
}


def test_claims_are_read_from_the_scorecards_of_their_arms() -> None:
    cards = {
        name: {
            seed: scorecard(None if identity is None else identity + 0.001 * seed, psnr + 0.01 * seed)
            for seed in range(3)
        }
        for name, (identity, psnr) in LEVELS.items()
    }
    results = {result.claim.claim_id: result for result in claim_results(RECIPE, cards)}
    assert {name: result.verdict for name, result in results.items()} == {
        "dit_over_unet": "does not hold",
        "condition_image_helps_unet": "holds",
        "dit_over_unet_stage2": "does not hold",
        "pooling_costs_detail": "holds",
        "people_tuning_helps_faces": "holds",
        "stages_over_direct": "holds",
        "text_helps_direct": "does not hold",
        "mse_over_cosine": "holds",
        "pooling_over_resampler": "does not hold",
        "adaptation_helps": "holds",
    }
    assert "it reaches 20.01 dB, which is no part of this comparison" in results["dit_over_unet"].note
    assert "A face is found in 50%" in results["stages_over_direct"].note


def test_a_call_trains_all_arms_and_writes_the_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[dict[str, Any]] = []

    def context_for(recipe: Recipe, runs: Path, run_dir: Path, name: str, tags: Any) -> RunContext:
        done.append({"tags": tags, "name": name})
        return RunContext(store=str(runs / "store"), run_dir=str(run_dir), run_name=name)

    def carry_out(pipeline: str, arguments: Mapping[str, str], context: RunContext, console: Any) -> None:
        assert pipeline == "ablation"
        done[-1].update(arguments)
        folder = Path(context.run_dir)
        identity, psnr = LEVELS[folder.name.rsplit("-", 1)[0]]
        write_json(folder / "scorecard.json", scorecard(identity, psnr))
        nothing = {"in": 0, "kept": 0, "dropped": {}}
        manifest = Manifest(step="score_arm", key="k", uri=str(folder), counts=nothing, files={})
        write_json(folder / "manifests" / "score_arm.json", manifest.model_dump())

    monkeypatch.setattr(ablations, "pipeline_named", str)
    monkeypatch.setattr(ablations, "context_for", context_for)
    monkeypatch.setattr(ablations, "carry_out", carry_out)
    monkeypatch.setattr(ablations, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    run = RunResult(tmp_path / "runs" / "now", "", "")
    page, out = tmp_path / "page.md", io.StringIO()
    console = Console(file=out, width=120)
    run_ablations(edit(RECIPE, {"seed": 4}), run, runs=tmp_path / "runs", seeds=2, page=page, console=console)

    assert [(job["tags"]["arm"], job["tags"]["seed"]) for job in done] == [
        (name, seed) for seed in ("4", "5") for name in ARMS
    ]
    assert {job["compares"] for job in done if job["tags"]["arm"] in ("unet", "dit_untrained")} == {
        "detokenizer"
    }
    chats = str(run.run_dir / "manifests" / "build_conversations.json")
    assert {job["conversations"] for job in done} == {chats}
    assert f"arm {len(done)} of {len(done)}: " in out.getvalue()
    assert "UNet from scratch, seed 5" in out.getvalue()
    content = read_json(run.run_dir / "claims.json")
    assert [claim["treatment"]["by_seed"].keys() for claim in content["claims"]] == [{"4", "5"}] * len(CLAIMS)
    assert "seeds 4 to 5" in content["context"]
    assert page.read_text() == (run.run_dir / "claims.md").read_text()
    assert (run.run_dir / "arms" / "direct-5" / "recipe.yaml").is_file()


def test_the_page_of_the_checkout_is_written_from_inside_of_it_only(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    assert ablations.default_page() == repository / "docs" / "claims.md"
    monkeypatch.chdir(tmp_path)
    assert ablations.default_page() is None


def test_an_arm_runs_only_what_is_compared_and_is_a_row_of_mlflow(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys = str(Path(__file__).parent / "toy_arms")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [toys, os.environ.get("PYTHONPATH")])))
    monkeypatch.syspath_prepend(str(repository))
    run_dir = tmp_path / "run"
    nothing = {"in": 0, "kept": 0, "dropped": {}}
    built = Manifest(step="build_conversations", key="k", uri=str(tmp_path), counts=nothing, files={})
    write_json(run_dir / "manifests" / "build_conversations.json", built.model_dump())
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = client_for(uri)
    parent = start_parent(client, "visavis", "run", {}, tmp_path.as_uri()).info.run_id
    run = RunResult(run_dir, uri, parent)
    inputs = {}
    names = ("direct", "unet", "adapted")
    todo = [(ARMS[name], 1) for name in names]
    for arm, _, folder in ablations._all_done(RECIPE, todo, run, tmp_path, 2, Console(file=io.StringIO())):
        inputs[arm.name] = read_json(folder / "scorecard.json")["inputs"]
    assert inputs == {
        "direct": ["detokenizer", "mllm", "tokens"],
        "unet": ["detokenizer", "tokens"],
        "adapted": ["adapted", "detokenizer", "mllm", "tokens"],
    }
    timings = read_json(run_dir / "arms" / "unet-1" / "timings.json")["steps"]
    assert [row["step"] for row in timings] == ["encode_images", "tune_detokenizer", "score_arm"]

    place = client.get_run(parent).info.experiment_id
    rows = client.search_runs([place], f"tags.mlflow.parentRunId = '{parent}'")
    assert {(row.data.tags["arm"], row.data.tags["seed"]) for row in rows} == {(name, "1") for name in names}
    assert {row.info.status for row in rows} == {"FINISHED"}
    assert {row.data.metrics["identity.margin"] for row in rows} == {0.25}
