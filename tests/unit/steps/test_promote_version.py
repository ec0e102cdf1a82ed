"""A version that was registered before is judged anew, and promoted if it may be; on a real registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from visavis.files import read_json, write_atomic, write_json
from visavis.recipes import Recipe, edit
from visavis.registry.promotion import Office
from visavis.steps.contracts import Manifest, RunContext
from visavis.steps.promote_version import promote_version
from visavis.tracking import client_for, ensure_experiment

NAME = "visavis"


class Registry:
    def __init__(self, folder: Path) -> None:
        self.folder, self.uri = folder, f"sqlite:///{folder / 'mlflow.db'}"
        self.client = client_for(self.uri)
        ensure_experiment(self.client, "visavis", (folder / "artifacts").as_uri())
        self.client.create_registered_model(NAME)
        for _ in range(2):
            tags = {"gate": "passed", "gate.champion": "none"}
            self.client.create_model_version(NAME, "s3://bucket/model", tags=tags)
        Office(self.uri, NAME, "Olivia").approve("1")
        Office(self.uri, NAME, "Olivia").promote("1")

    def promote(self, approval: str, decision: dict[str, Any], version: str = "2") -> dict[str, Any]:
        judged = self.folder / "judged"
        write_json(judged / "decision.json", decision)
        counts = {"in": 1, "kept": 1, "dropped": {}}
        manifest = Manifest(step="gate_model", key="k", uri=str(judged), counts=counts, files={})
        write_atomic(self.folder / "decision.json", manifest.model_dump_json())
        recipe = edit(Recipe(name="toy", pack="storybook"), {"registration.approval": approval})
        run = RunContext(
            store=str(self.folder / "store"), run_dir=str(self.folder / "run"), tracking_uri=self.uri
        )
        done = promote_version(
            recipe.model_dump_json(),
            run.model_dump_json(),
            {"decision": self.folder / "decision.json"},
            self.folder / "out.json",
            f"models:/{NAME}/{version}",
        )
        return dict(read_json(done.folder / "promotion.json"))

    @property
    def champion(self) -> str:
        return str(self.client.get_model_version_by_alias(NAME, "champion").version)

    def tags(self, number: str) -> dict[str, str]:
        return dict(self.client.get_model_version(NAME, number).tags)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def decision(passed: bool, champion: str | None = "1") -> dict[str, Any]:
    rules = [{"metric": "rounds.right_person_accuracy", "passed": passed, "reason": "as the test says"}]
    return {"passed": passed, "champion": champion, "rules": rules}


def test_what_the_gate_refuses_stays_where_it_is_and_its_tags_say_so(registry: Registry) -> None:
    told = registry.promote("automatic", decision(False))
    assert (told["promoted"], told["reason"], registry.champion) == (False, "gate_failed", "1")
    tags = registry.tags("2")
    assert (tags["gate"], tags["gate.failed"]) == ("failed", "rounds.right_person_accuracy")


def test_it_is_promoted_where_nobody_must_approve(registry: Registry) -> None:
    assert registry.promote("automatic", decision(True))["promoted"]
    assert registry.champion == "2" and registry.tags("2")["gate.champion"] == "1"


def test_somebody_must_have_approved_where_the_recipe_asks_for_it(registry: Registry) -> None:
    told = registry.promote("required", decision(True))
    assert told["reason"] == "refused" and "visavis approve 2" in told["words"] and registry.champion == "1"
    Office(registry.uri, NAME, "Olivia").approve("2")
    assert registry.promote("required", decision(True))["promoted"] and registry.champion == "2"


def test_a_champion_that_changed_meanwhile_is_noticed(registry: Registry) -> None:
    told = registry.promote("automatic", decision(True, champion="7"))
    assert told["reason"] == "refused" and "was compared with champion 7" in told["words"]
