"""The last two steps: from a scorecard to a version with an alias, or to a refusal that names its rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from visavis.evaluation.scorecard import REQUIRED
from visavis.files import read_json, read_jsonl, write_json
from visavis.recipes import Recipe, edit
from visavis.registry.versions import find
from visavis.steps.framework import Manifest, RunContext
from visavis.steps.gate_model import gate_model
from visavis.steps.register_model import register_model
from visavis.tracking import client_for, start_parent

ACCURACY = "rounds.right_person_accuracy"


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def context(tmp_path: Path, mlflow_uri: str) -> str:
    client = client_for(mlflow_uri)
    artifacts = Path(mlflow_uri.removeprefix("sqlite:///")).with_name("artifacts").as_uri()
    parent = start_parent(client, "visavis", tmp_path.name, {}, artifacts).info.run_id
    return RunContext(
        store=str(tmp_path / "store"),
        run_dir=str(tmp_path / "run"),
        tracking_uri=mlflow_uri,
        parent_run_id=parent,
        git_sha="abc",
        recipe_hash="r1",
        relayed=True,
    ).model_dump_json()


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Writes what `evaluate_model` leaves behind, and returns its manifest."""
    folder = tmp_path / "evaluated"
    card: dict[str, Any] = {"counts": {"rounds": 240}, "seed": 0}
    for path in REQUIRED:
        section, name = path.split(".")
        card.setdefault(section, {})[name] = {"value": 0.8, "ci95": [0.7, 0.9], "n": 240}
    write_json(folder / "scorecard.json", card)
    (folder / "model" / "mllm").mkdir(parents=True)
    (folder / "model" / "mllm" / "model.safetensors").write_bytes(b"weights")
    counts = {"in": 1, "kept": 1, "dropped": {}}
    manifest = Manifest(step="evaluate_model", key="k1", uri=str(folder), counts=counts, files={})
    (tmp_path / "evaluated.json").write_text(manifest.model_dump_json())
    return tmp_path / "evaluated.json"


def recipe_with(floor: float, name: str) -> str:
    rules = [{"metric": f"{ACCURACY}.low", "floor": floor}]
    return edit(
        Recipe(name="toy", pack="storybook"), {"gate.rules": rules, "registration.name": name}
    ).model_dump_json()


def both_steps(recipe: str, context: str, scored: Path) -> tuple[Manifest, Manifest]:
    out = scored.parent
    decision = gate_model(recipe, context, {"scorecard": scored}, out / "decision.json")
    inputs = {"scorecard": scored, "decision": out / "decision.json"}
    return decision, register_model(recipe, context, inputs, out / "version.json")


def test_a_model_that_passes_becomes_the_challenger_once(context: str, scored: Path, mlflow_uri: str) -> None:
    recipe = recipe_with(0.6, "passing")
    for _ in range(2):
        decision, version = both_steps(recipe, context, scored)
    assert decision.counts == {"in": 1, "kept": 1, "dropped": {}}
    found = find("models:/passing@challenger", tracking_uri=mlflow_uri)
    assert (found.version, found.tags["gate"], found.tags["git.sha"]) == ("1", "passed", "abc")
    assert read_json(version.folder / "version.json")["uri"] == "models:/passing/1"


def test_a_model_that_fails_is_kept_without_alias_and_says_why(
    context: str, scored: Path, mlflow_uri: str
) -> None:
    decision, version = both_steps(recipe_with(0.75, "failing"), context, scored)
    assert decision.counts == {"in": 1, "kept": 0, "dropped": {"gate_failed": 1}}
    assert read_jsonl(decision.folder / "ledger.jsonl")[0]["detail"]["rules"] == [f"{ACCURACY}.low"]
    assert version.counts["kept"] == 1
    found = find("models:/failing/1", tracking_uri=mlflow_uri)
    assert found.aliases == ()
    assert found.tags["gate.failed"] == f"{ACCURACY}.low"


def test_the_champion_sets_the_bar(context: str, scored: Path) -> None:
    folder = Manifest.read(scored).folder
    champion = read_json(folder / "scorecard.json")
    champion["rounds"]["right_person_accuracy"]["value"] = 0.95
    write_json(folder / "champion_scorecard.json", champion)
    rules = [{"metric": ACCURACY, "max_regression": 0.1}]
    recipe = edit(Recipe(name="toy", pack="storybook"), {"gate.rules": rules}).model_dump_json()
    decision = gate_model(recipe, context, {"scorecard": scored}, scored.parent / "decision.json")
    reason = read_json(decision.folder / "decision.json")["rules"][0]["reason"]
    assert reason == "0.8 is below the champion's 0.95 -0.1 (0.85)"


def test_a_version_names_its_data_set(context: str, scored: Path, mlflow_uri: str, tmp_path: Path) -> None:
    manifest = Manifest.read(scored).model_copy(update={"inputs": {"conversations": "k0"}})
    scored.write_text(manifest.model_dump_json())
    folder = tmp_path / "store" / "build_conversations" / "k0"
    write_json(folder / "dataset.json", {"digest": "d0", "files": {}})
    both_steps(recipe_with(0.6, "traced"), context, scored)
    tags = find("models:/traced/1", tracking_uri=mlflow_uri).tags
    assert (tags["data.manifest"], tags["data.digest"]) == ("k0", "d0")
