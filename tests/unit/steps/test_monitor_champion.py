"""After release: a champion that does worse on fresh inputs is told of, and its past is found in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from visavis.errors import VisavisError
from visavis.evaluation.intervals import Figure
from visavis.evaluation.scorecard import REQUIRED, Scorecard
from visavis.files import read_json
from visavis.recipes import Recipe, edit
from visavis.steps.framework import Manifest, RunContext
from visavis.steps.monitor_champion import monitor_champion
from visavis.steps.scoring import Scored
from visavis.tracking import Post, client_for, ensure_experiment
from visavis.tracking.tracker import FOLDER

ARCFACE = "identity.arcface_single_round"
RECIPE = edit(Recipe(name="toy", pack="storybook"), {"monitor.webhook": "http://alerts.example/hook"})


def card(arcface: float) -> Scorecard:
    sections: dict[str, dict[str, Figure]] = {}
    for path in REQUIRED:
        section, name = path.split(".")
        sections.setdefault(section, {})[name] = Figure(0.5, (0.45, 0.55), 100)
    sections["identity"]["arcface_single_round"] = Figure(arcface, (arcface - 0.02, arcface + 0.02), 100)
    return Scorecard(sections, {}, 0)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    ensure_experiment(client_for(address), "visavis", (tmp_path / "artifacts").as_uri())
    return address


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "visavis.tracking.webhook.notify",
        lambda url, event, content: calls.append({"event": event, **content}),
    )
    return calls


def look(tmp_path: Path, uri: str, number: int, arcface: float, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Looks at the champion on the inputs of one week."""
    monkeypatch.setattr(
        "visavis.steps.monitor_champion.score_version", lambda *_: Scored(card(arcface), [], [], [], [], [])
    )
    counts = {"in": 0, "kept": 0, "dropped": {}}
    tokens = Manifest(
        step="encode_images", key=f"week{number}", uri=str(tmp_path), counts=counts, files={"a": str(number)}
    )
    file = tmp_path / f"week{number}.json"
    file.write_text(tokens.model_dump_json())
    context = RunContext(
        store=str(tmp_path / "store"), run_dir=str(tmp_path / f"run{number}"), tracking_uri=uri, relayed=True
    )
    post = Post(context, Path(context.run_dir) / FOLDER).start()
    try:
        return monitor_champion(
            RECIPE.model_dump_json(), context.model_dump_json(), {"tokens": file}, tmp_path / "drift.json"
        )
    finally:
        post.close()


def champion(tmp_path: Path, uri: str, arcface: float) -> None:
    """Registers a champion whose run holds the scorecard of its release."""
    client = client_for(uri)
    run = client.create_run(client.get_experiment_by_name("visavis").experiment_id)
    card(arcface).write(tmp_path / "scorecard.json")
    client.log_artifact(run.info.run_id, str(tmp_path / "scorecard.json"))
    client.create_registered_model("visavis")
    client.create_model_version("visavis", "s3://bucket/model", run_id=run.info.run_id)
    client.set_registered_model_alias("visavis", "champion", "1")


def test_a_fall_since_release_or_the_last_look_is_told(
    tmp_path: Path, uri: str, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    champion(tmp_path, uri, 0.30)
    steady = look(tmp_path, uri, 1, 0.31, monkeypatch)
    report = read_json(steady.folder / "drift.json")
    assert not report["drifted"] and {row["since"] for row in report["figures"]} == {"release"}
    assert told == [] and client_for(uri).get_model_version("visavis", "1").tags["drift"] == "none"

    fallen = look(tmp_path, uri, 2, 0.20, monkeypatch)
    report = read_json(fallen.folder / "drift.json")
    since = [row["since"] for row in report["figures"] if row["drifted"]]
    assert len(since) == 2 and since[0] == "release" and since[1].startswith("20")
    (alert,) = told
    assert alert["event"] == "visavis.drift" and alert["model"] == "models:/visavis/1"
    assert {row["path"] for row in alert["figures"]} == {ARCFACE}
    assert client_for(uri).get_model_version("visavis", "1").tags["drift"] == ARCFACE

    look(tmp_path, uri, 2, 0.20, monkeypatch)
    assert len(told) == 1, "the same inputs are looked at once"


def test_no_champion_is_an_error_that_says_what_to_do(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VisavisError, match="has no champion") as caught:
        look(tmp_path, uri, 1, 0.3, monkeypatch)
    assert "visavis promote" in caught.value.fix


def test_an_alert_that_nobody_takes_fails_the_step_and_is_sent_by_the_next_try(
    tmp_path: Path, uri: str, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    champion(tmp_path, uri, 0.30)
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> None:
            raise VisavisError("webhook did not take it", fix="run again")

        patch.setattr("visavis.tracking.webhook.notify", refuse)
        with pytest.raises(VisavisError, match="did not take"):
            look(tmp_path, uri, 1, 0.1, monkeypatch)
    assert told == []
    look(tmp_path, uri, 1, 0.1, monkeypatch)
    assert len(told) == 1
