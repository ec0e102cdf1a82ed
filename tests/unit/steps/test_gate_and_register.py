"""The last steps: from a scorecard to a champion, a version that waits, or a refusal that names its rule."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from visavis.evaluation.scorecard import REQUIRED, Scorecard
from visavis.files import read_json, read_jsonl, write_json, write_jsonl
from visavis.recipes import Recipe, edit
from visavis.registry import promotion
from visavis.registry.versions import Version, find
from visavis.steps.evaluate_champion import evaluate_champion
from visavis.steps.framework import Manifest, RunContext, StepJob
from visavis.steps.gate_model import gate_model
from visavis.steps.promote_model import promote_model
from visavis.steps.register_model import register_model
from visavis.steps.scoring import Scored
from visavis.tracking import client_for, start_parent

ACCURACY = "rounds.right_person_accuracy"
AUTOMATIC = {"registration.approval": "automatic"}


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
    write_jsonl(folder / "items.jsonl", [])
    (folder / "model" / "mllm").mkdir(parents=True)
    (folder / "model" / "mllm" / "model.safetensors").write_bytes(b"weights")
    counts = {"in": 1, "kept": 1, "dropped": {}}
    manifest = Manifest(step="evaluate_model", key="k1", uri=str(folder), counts=counts, files={})
    (tmp_path / "evaluated.json").write_text(manifest.model_dump_json())
    return tmp_path / "evaluated.json"


def recipe_with(floor: float, name: str, **changes: Any) -> str:
    rules = [
        {"metric": f"{ACCURACY}.low", "floor": floor},
        {"metric": ACCURACY, "max_regression": 0.1},
    ]
    values = {"gate.rules": rules, "registration.name": name, **changes}
    return edit(Recipe(name="toy", pack="storybook"), values).model_dump_json()


def all_steps(recipe: str, context: str, scored: Path) -> dict[str, Manifest]:
    """Runs what follows the evaluation of a candidate."""
    files = {
        name: scored.parent / f"{name}.json" for name in ("champion", "decision", "version", "promotion")
    }
    champion, decision, version, promotion = files.values()
    inputs = {"tokens": scored, "scorecard": scored}
    return {
        "champion": evaluate_champion(recipe, context, inputs, champion),
        "decision": gate_model(recipe, context, {"scorecard": scored, "champion": champion}, decision),
        "version": register_model(recipe, context, {"scorecard": scored, "decision": decision}, version),
        "promotion": promote_model(recipe, context, {"version": version}, promotion),
    }


def candidate(scored: Path, weights: bytes, accuracy: float = 0.8) -> None:
    """Puts other weights and another figure into the evaluation's result."""
    folder = Manifest.read(scored).folder
    (folder / "model" / "mllm" / "model.safetensors").write_bytes(weights)
    card = read_json(folder / "scorecard.json")
    card["rounds"]["right_person_accuracy"]["value"] = accuracy
    write_json(folder / "scorecard.json", card)
    key = {
        "key": hashlib.sha256(weights).hexdigest(),
        "files": {"model": hashlib.sha256(weights).hexdigest()},
    }
    scored.write_text(Manifest.read(scored).model_copy(update=key).model_dump_json())


def words(done: dict[str, Manifest]) -> str:
    return str(read_json(done["promotion"].folder / "promotion.json")["words"])


def test_a_model_that_passes_becomes_the_challenger_once_and_waits(
    context: str, scored: Path, mlflow_uri: str
) -> None:
    recipe = recipe_with(0.6, "passing")
    for _ in range(2):
        done = all_steps(recipe, context, scored)
    assert done["champion"].counts == {"in": 1, "kept": 0, "dropped": {"no_champion": 1}}
    assert done["decision"].counts == {"in": 1, "kept": 1, "dropped": {}}
    found = find("models:/passing@challenger", tracking_uri=mlflow_uri)
    assert (found.version, found.tags["gate"], found.tags["git.sha"]) == ("1", "passed", "abc")
    assert found.tags["gate.champion"] == "none"
    assert read_json(done["version"].folder / "version.json")["uri"] == "models:/passing/1"
    assert done["promotion"].counts["dropped"] == {"waits_for_approval": 1}
    assert "`visavis approve 1`" in words(done)
    assert found.aliases == ("challenger",)


def test_a_model_that_fails_is_kept_without_alias_and_says_why(
    context: str, scored: Path, mlflow_uri: str
) -> None:
    done = all_steps(recipe_with(0.75, "failing", **AUTOMATIC), context, scored)
    assert done["decision"].counts == {"in": 1, "kept": 0, "dropped": {"gate_failed": 1}}
    assert read_jsonl(done["decision"].folder / "ledger.jsonl")[0]["detail"]["rules"] == [f"{ACCURACY}.low"]
    assert done["version"].counts["kept"] == 1
    assert done["promotion"].counts["dropped"] == {"gate_failed": 1}
    found = find("models:/failing/1", tracking_uri=mlflow_uri)
    assert found.aliases == ()
    assert found.tags["gate.failed"] == f"{ACCURACY}.low"


def test_the_champion_is_scored_in_the_same_run_and_sets_the_bar(
    context: str, scored: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_with(0.6, "barred", **AUTOMATIC)
    done = all_steps(recipe, context, scored)
    assert "approved automatically" in words(done)
    first = find("models:/barred@champion", tracking_uri=mlflow_uri)
    assert (first.version, first.tags["approved.by"]) == ("1", promotion.AUTOMATIC)

    again = all_steps(recipe, context, scored)
    assert read_json(again["decision"].folder / "decision.json")["champion"] == "1"
    assert words(again).startswith("models:/barred/1 is the champion already")

    asked: list[str] = []

    def scored_again(job: StepJob, version: Version) -> Scored:
        asked.append(version.uri)
        card = Scorecard.read(job.folder("scorecard") / "scorecard.json").to_dict()
        card["rounds"]["right_person_accuracy"]["value"] = 0.95
        return Scored(Scorecard.from_dict(card), [], [], [], [], [])

    monkeypatch.setattr("visavis.steps.evaluate_champion.score_version", scored_again)
    candidate(scored, b"worse", 0.8)
    worse = all_steps(recipe, context, scored)
    all_steps(recipe, context, scored)
    assert asked == ["models:/barred/1"], "the same two models are compared once"
    reason = read_json(worse["decision"].folder / "decision.json")["rules"][1]["reason"]
    assert reason == "0.8 is below the champion's 0.95 -0.1 (0.85)"
    assert words(worse) == "models:/barred/2 stays without an alias: the gate refused it"
    candidate(scored, b"better", 0.9)
    better = all_steps(recipe, context, scored)
    assert words(better).startswith("models:/barred/3 is the champion (approved")
    third = find("models:/barred@champion", tracking_uri=mlflow_uri)
    assert (third.version, third.tags["gate.champion"]) == ("3", "1")
    assert find("models:/barred@previous", tracking_uri=mlflow_uri).version == "1"


def test_a_version_that_was_rolled_back_is_not_promoted_automatically(
    context: str, scored: Path, mlflow_uri: str
) -> None:
    recipe = recipe_with(0.6, "withdrawn", **AUTOMATIC)
    all_steps(recipe, context, scored)
    client_for(mlflow_uri).set_model_version_tag("withdrawn", "1", "approval", "withdrawn")
    done = all_steps(recipe, context, scored)
    assert done["promotion"].counts["dropped"] == {"refused": 1}
    assert "was rolled back" in words(done)


def test_a_version_names_its_data_set(context: str, scored: Path, mlflow_uri: str, tmp_path: Path) -> None:
    manifest = Manifest.read(scored).model_copy(update={"inputs": {"conversations": "k0"}})
    scored.write_text(manifest.model_dump_json())
    folder = tmp_path / "store" / "build_conversations" / "k0"
    counts = {"splits": {"train": 2, "test": 1}, "people": 4}
    write_json(folder / "dataset.json", {"digest": "d0", "files": {}, "counts": counts, "name": "Chats"})
    origins = [{"item": f"c{number}", "kind": "clip", "licence": "CC0-1.0"} for number in range(3)]
    write_jsonl(folder / "origins.jsonl", origins)
    files = {"dataset.json": "", "origins.jsonl": ""}
    nothing = {"in": 0, "kept": 0, "dropped": {}}
    data = Manifest(step="build_conversations", key="k0", uri=str(folder), counts=nothing, files=files)
    write_json(folder / "manifest.json", data.model_dump())
    all_steps(recipe_with(0.6, "traced"), context, scored)
    tags = find("models:/traced/1", tracking_uri=mlflow_uri).tags
    assert (tags["data.manifest"], tags["data.digest"]) == ("k0", "d0")
    described = client_for(mlflow_uri).get_model_version("traced", "1").description
    for part in (
        "# traced, version 1",
        "2 train, 1 test of 4 people",
        "| clips | CC0-1.0 | 3 |",
        "| part `clip` | MIT | |",
        "| rounds: right person accuracy | 80.0 % |",
        "Passed; there was no champion.",
        "## Limits",
        "conversations `k0`",
    ):
        assert part in described, part
