"""The gate and the registry: rules that name themselves, aliases that move, versions that can be loaded."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

import visavis.loading
from visavis.errors import VisavisError
from visavis.registry import GateConfig, GateRule, decide
from visavis.registry.versions import Version, find, promote, register, rollback


def card(accuracy: float | None = 0.8, low: float = 0.7, psnr: float = 22.0, before: float = 20.0) -> dict:
    n = 0 if accuracy is None else 240
    return {
        "rounds": {"right_person_accuracy": {"value": accuracy, "ci95": [low, 0.9] if n else None, "n": n}},
        "reconstruction": {
            "after": {"value": psnr, "ci95": [psnr - 1, psnr + 1], "n": 9},
            "before": {"value": before, "ci95": None, "n": 9},
        },
    }


ACCURACY = "rounds.right_person_accuracy.low"


@pytest.mark.parametrize(
    ("rule", "candidate", "champion", "passed", "words"),
    [
        (GateRule(metric=ACCURACY, floor=0.6), card(), None, True, "0.7 against the floor (0.6)"),
        (GateRule(metric=ACCURACY, floor=0.6), card(low=0.55), None, False, "0.55 is below the floor (0.6)"),
        (GateRule(metric=ACCURACY, floor=0.7), card(), None, True, "against the floor"),
        (GateRule(metric=ACCURACY, floor=0.6), card(accuracy=None), None, False, "was not measured"),
        (
            GateRule(metric="reconstruction.after", better_than="reconstruction.before"),
            card(psnr=20.0),
            None,
            False,
            "20 is below reconstruction.before (20)",
        ),
        (GateRule(metric=ACCURACY, max_regression=0.05), card(low=0.1), None, True, "there is no champion"),
        (GateRule(metric=ACCURACY, max_regression=0.05), card(low=0.66), card(), True, "the champion's 0.7"),
        (
            GateRule(metric=ACCURACY, max_regression=0.05),
            card(low=0.6),
            card(),
            False,
            "is below the champion's",
        ),
        (
            GateRule(metric="reconstruction.after", direction="lower", floor=10.0),
            card(),
            None,
            False,
            "22 is above the floor (10)",
        ),
    ],
)
def test_a_rule_judges_and_gives_its_reason(
    rule: GateRule, candidate: dict, champion: dict | None, passed: bool, words: str
) -> None:
    decision = decide(candidate, champion, GateConfig(rules=(rule,)))
    assert decision.passed is passed
    assert words in decision.rules[0].reason
    assert decision.failed == (() if passed else (rule.metric,))


def test_one_failed_rule_fails_the_gate_and_is_named_first() -> None:
    rules = (GateRule(metric="reconstruction.after", floor=1.0), GateRule(metric=ACCURACY, floor=0.9))
    decision = decide(card(), None, GateConfig(rules=rules))
    assert not decision.passed
    assert decision.words().startswith(f"FAIL  {ACCURACY}: 0.7 is below the floor (0.9)\npass")


def test_no_rules_let_every_model_pass() -> None:
    assert decide(card(accuracy=None), None, GateConfig(rules=())).passed


def test_a_rule_that_asks_nothing_or_an_unknown_figure_is_refused() -> None:
    with pytest.raises(ValidationError, match="asks nothing"):
        GateRule(metric=ACCURACY)
    with pytest.raises(VisavisError, match=r"no figure 'rounds\.accuracy'"):
        decide(card(), None, GateConfig(rules=(GateRule(metric="rounds.accuracy", floor=0.5),)))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("registry")
    from visavis.tracking import client_for, ensure_experiment

    address = f"sqlite:///{folder / 'mlflow.db'}"
    ensure_experiment(client_for(address), "Default", None)
    client_for(address).create_experiment("visavis", artifact_location=str(folder / "artifacts"))
    return address


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def folder_with(tmp_path: Path, weights: bytes) -> Path:
    folder = tmp_path / weights.decode()
    (folder / "mllm").mkdir(parents=True)
    (folder / "mllm" / "model.safetensors").write_bytes(weights)
    (folder / "recipe.json").write_text("{}")
    return folder


def registered(tmp_path: Path, uri: str, name: str, weights: bytes, gate: str = "passed") -> Version:
    from visavis.tracking import client_for

    client = client_for(uri)
    run = client.create_run(client.get_experiment_by_name("visavis").experiment_id)
    return register(
        folder_with(tmp_path, weights),
        tracking_uri=uri,
        name=name,
        run_id=run.info.run_id,
        tags={"gate": gate, "git.sha": "abc", "recipe.hash": "r1"},
        metrics={"rounds.right_person_accuracy": 0.8},
        alias="challenger" if gate == "passed" else None,
    )


def test_promotion_and_rollback_move_the_aliases(tmp_path: Path, uri: str, name: str) -> None:
    first = registered(tmp_path, uri, name, b"one")
    assert (first.version, first.aliases, first.tags["git.sha"]) == ("1", ("challenger",), "abc")
    assert len(first.tags["weights.sha256"]) == 64
    with pytest.raises(VisavisError, match="no version with the alias previous"):
        rollback(tracking_uri=uri, name=name)
    assert promote(tracking_uri=uri, name=name).version == "1"

    second = registered(tmp_path, uri, name, b"two")
    assert second.version == "2"
    assert promote(tracking_uri=uri, name=name).version == "2"
    assert find(f"models:/{name}@previous", tracking_uri=uri).version == "1"
    assert rollback(tracking_uri=uri, name=name).version == "1"
    assert rollback(tracking_uri=uri, name=name).version == "2"


def test_equal_weights_make_one_version_and_a_refused_one_gets_no_alias(
    tmp_path: Path, uri: str, name: str
) -> None:
    first = registered(tmp_path / "a", uri, name, b"one", gate="failed")
    assert first.aliases == ()
    with pytest.raises(VisavisError, match="gate=failed"):
        promote(tracking_uri=uri, name=name, source="1")
    again = registered(tmp_path / "b", uri, name, b"one")
    assert (again.version, again.aliases) == ("1", ("challenger",))


def test_a_folder_without_weights_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(VisavisError, match=r"holds no \*\.safetensors"):
        register(tmp_path, tracking_uri=uri)


class FakeChatModel:
    """Stands for the real model, which needs trained weights: knows what its weights file holds."""

    def __init__(self, folder: Path) -> None:
        self.word = (folder / "mllm" / "model.safetensors").read_text()

    from_pretrained = classmethod(lambda cls, folder: cls(folder))


class FakeSession:
    def __init__(self, model: FakeChatModel) -> None:
        self.model, self.said = model, 0

    def say(self, sentence: str) -> SimpleNamespace:
        self.said += 1
        picture = np.zeros((4, 4, 3), np.uint8) if self.said == 2 else None
        return SimpleNamespace(text=f"{self.model.word}: {sentence}", picture=picture)


def test_a_version_loads_by_alias_and_as_pyfunc(
    tmp_path: Path, uri: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = {"model": {"ChatModel": FakeChatModel}, "session": {"ChatSession": FakeSession}}
    for module, content in fakes.items():
        monkeypatch.setitem(sys.modules, f"visavis.chat.{module}", SimpleNamespace(**content))
    registered(tmp_path, uri, name, b"one")
    model = visavis.loading.load(f"models:/{name}@challenger", tracking_uri=uri)
    assert model.word == "one"

    import mlflow

    mlflow.set_tracking_uri(uri)
    served = mlflow.pyfunc.load_model(f"models:/{name}@challenger")
    first, second = served.predict([["hello", "show her"]])[0]
    assert first == {"text": "one: hello", "image": ""}
    assert Image.open(io.BytesIO(base64.b64decode(second["image"]))).size == (4, 4)
    assert not (Path.cwd() / "mlruns").exists()


def test_an_address_that_leads_nowhere_is_explained(tmp_path: Path, uri: str, name: str) -> None:
    for address, words in {
        f"models:/{name}@challenger": "does not exist",
        "models:/visavis": "is not a model address",
        str(tmp_path / "nowhere"): "neither a model address nor a folder",
    }.items():
        with pytest.raises(VisavisError, match=words):
            visavis.loading.resolve(address, tracking_uri=uri)
    with pytest.raises(VisavisError, match="there is no MLflow database"):
        visavis.loading.resolve("models:/visavis@champion", tracking_uri=f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_process_that_knows_nothing_of_mlflow_finds_a_version(tmp_path: Path, uri: str, name: str) -> None:
    registered(tmp_path, uri, name, b"one")
    code = (
        "import sys; from visavis.loading import resolve;"
        "print(resolve(sys.argv[1], tracking_uri=sys.argv[2]) / 'mllm' / 'model.safetensors')"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, f"models:/{name}@challenger", uri],
        env=environment,
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.splitlines()[-1]).read_bytes() == b"one"
    assert not list(elsewhere.iterdir())
