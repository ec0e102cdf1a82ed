from __future__ import annotations

import errno
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from visavis.cli import app
from visavis.cli.doctor import examine, port_is_free
from visavis.cli.summary import show, show_claims
from visavis.files import write_json
from visavis.packs import Manifest, Part, write_manifest
from visavis.steps import contracts


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def assert_explained(result: Any, *words: str) -> None:
    """One message that names all of `words` and a fix; the exit code of a user's mistake; no traceback."""
    assert result.exit_code == 2, result.output
    assert "error:" in result.stderr
    assert "fix:" in result.stderr
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    root = tmp_path / "pack"
    (root / "faces").mkdir(parents=True)
    (root / "faces" / "net.onnx").write_bytes(b"weights")
    part = Part(path="faces", licence="MIT")
    write_manifest(root, Manifest(name="tiny", version="1", licence="MIT", parts={"faces": part}))
    return root


def test_help_teaches_by_examples() -> None:
    top = call("--help")
    assert top.exit_code == 0
    assert "visavis run --recipe smoke" in top.stdout
    for verb in (
        "run",
        "compile",
        "submit",
        "submit-if-changed",
        "schedule",
        "status",
        "logs",
        "retry",
        "cancel",
        "ui",
        "doctor",
        "chat",
        "gate",
        "approve",
        "promote",
        "rollback",
        "canary",
        "models",
        "evaluate",
        "monitor",
        "lineage",
        "study",
        "recipe",
        "pack",
        "storybook",
    ):
        assert re.search(rf"\b{verb}\b", top.stdout), verb
    assert "mllm.pair.lr=1e-4" in call("run", "--help").stdout


def test_a_run_that_begins_in_the_middle_names_both() -> None:
    for options in (["--from", "encode_images"], ["--input", "manifest.json"]):
        result = call("run", *options)
        assert result.exit_code == 2 and "--from and --input go together" in result.stderr


def test_every_verb_has_help() -> None:
    import typer

    def visit(command: Any, path: tuple[str, ...]) -> None:
        result = call(*path, "--help")
        assert result.exit_code == 0, path
        assert command.help, path
        for name, child in getattr(command, "commands", {}).items():
            visit(child, (*path, name))

    visit(typer.main.get_command(app), ())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from visavis.cli import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "assert not {'torch', 'transformers', 'mlflow', 'kfp', 'cv2', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version() -> None:
    assert re.fullmatch(r"visavis \d+\.\d+\.\d+\S*\n", call("--version").stdout)


def test_recipes_are_listed_and_shown() -> None:
    assert {"smoke", "storybook", "seedx"} <= set(call("recipe", "list").stdout.split())
    shown = call("recipe", "show", "smoke", "mllm.pair.lr=5e-4", "seed=3")
    assert shown.exit_code == 0
    assert "lr: 0.0005" in shown.stdout
    assert "seed: 3" in shown.stdout


def test_a_shown_recipe_can_be_saved_and_shown_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(call("recipe", "show", "smoke").stdout)
    assert call("recipe", "show", str(file)).stdout == file.read_text()


@pytest.mark.parametrize("verb", [("run", "--recipe"), ("recipe", "show"), ("gate", "--recipe")])
def test_an_unknown_recipe_suggests_the_nearest(verb: tuple[str, ...]) -> None:
    assert_explained(call(*verb, "storybok"), "'storybok'", "did you mean 'storybook'?")


@pytest.mark.parametrize("verb", [("run", "--recipe", "smoke"), ("recipe", "show", "smoke")])
def test_an_unknown_key_suggests_the_nearest(verb: tuple[str, ...]) -> None:
    assert_explained(call(*verb, "mllm.pare.lr=1"), "'mllm.pare.lr'", "did you mean mllm.pair.lr?")


def test_a_wrong_value_is_named_with_its_field() -> None:
    assert_explained(
        call("run", "--recipe", "smoke", "rounds.batch_size=none"), "rounds.batch_size", "'none'"
    )


def test_a_run_without_clips_leaves_nothing_behind(tmp_path: Path, pack: Path) -> None:
    missing = tmp_path / "no such folder"
    where = ("--runs", str(tmp_path / "runs"), f"pack={pack}", f"clips.source={missing}")
    result = call("run", "--recipe", "smoke", *where)
    assert_explained(result, "clips.source", str(missing))
    assert not (tmp_path / "runs" / "latest").exists()


def test_a_recipe_that_needs_clips_says_so(tmp_path: Path, pack: Path) -> None:
    result = call("run", "--recipe", "seedx", "--runs", str(tmp_path / "runs"), f"pack={pack}")
    assert_explained(result, "clips.source")


def test_a_damaged_pack_stops_a_run_before_it_begins(tmp_path: Path, pack: Path) -> None:
    (pack / "faces" / "net.onnx").write_bytes(b"other")
    result = call("run", "--recipe", "smoke", "--runs", str(tmp_path / "runs"), f"pack={pack}")
    assert_explained(result, "faces/net.onnx", "sha256")
    assert not (tmp_path / "runs").exists()


def test_packs_are_verified(pack: Path) -> None:
    assert call("pack", "verify", str(pack)).exit_code == 0
    (pack / "faces" / "net.onnx").write_bytes(b"other")
    assert_explained(call("pack", "verify", str(pack)), "faces/net.onnx", "sha256")
    (pack / "faces" / "net.onnx").unlink()
    assert_explained(call("pack", "verify", str(pack)), "faces/net.onnx", "missing")
    assert_explained(call("pack", "verify", "storybok"), "'storybok'")


def test_only_a_known_pack_and_part_can_be_built(tmp_path: Path) -> None:
    assert_explained(call("pack", "build", "seedx"), "'seedx'", "pack build storybook")
    where = ("--work", str(tmp_path / "work"), "--out", str(tmp_path / "pack"))
    assert_explained(call("pack", "build", "storybook", "--part", "nose", *where), "'nose'", "segmenter")
    assert not any(tmp_path.iterdir())


def test_a_pack_without_a_card_says_so(pack: Path) -> None:
    assert_explained(call("pack", "card", str(pack)), "card.md")
    (pack / "card.md").write_text("# Tiny pack\n")
    assert "Tiny pack" in call("pack", "card", str(pack)).stdout


def test_ui_without_runs_says_what_to_run(tmp_path: Path) -> None:
    assert_explained(call("ui", "--runs", str(tmp_path)), "mlflow.db", "visavis run")


def test_ui_on_a_port_in_use_suggests_another(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not port_is_free(port)
        assert_explained(
            call("ui", "--runs", str(tmp_path), "--port", str(port)), f"port {port}", f"--port {port + 1}"
        )


@pytest.mark.parametrize(
    ("model", "words"), [("models:/visavis@challenger", "mlflow.db"), ("no/such/folder", "no/such/folder")]
)
def test_chat_without_a_model_says_so(tmp_path: Path, model: str, words: str) -> None:
    assert_explained(call("chat", "--model", model, "--runs", str(tmp_path)), words)


def test_gate_without_a_scorecard(tmp_path: Path) -> None:
    assert_explained(call("gate", str(tmp_path)), "scorecard.json")
    (tmp_path / "scorecard.json").write_text("not json")
    assert_explained(call("gate", str(tmp_path)), "scorecard.json")


def test_gate_of_a_run_that_had_no_champion(tmp_path: Path) -> None:
    figure = {"value": 0.7, "ci95": [0.65, 0.75], "n": 240}
    write_json(tmp_path / "scorecard.json", {"rounds": {"right_person_accuracy": figure}})
    write_json(tmp_path / "result" / "champion.json", {"version": None})
    counts = {"in": 1, "kept": 0, "dropped": {"no_champion": 1}}
    note = contracts.Manifest(
        step="evaluate_champion", key="k", uri=str(tmp_path / "result"), counts=counts, files={}
    )
    write_json(tmp_path / "manifests" / "evaluate_champion.json", note.model_dump())
    rules = "rules: [{metric: rounds.right_person_accuracy, max_regression: 0.05}]"
    (tmp_path / "gate.yaml").write_text(rules)
    done = call("gate", str(tmp_path), "--rules", str(tmp_path / "gate.yaml"))
    assert done.exit_code == 0, done.output
    assert "there is no champion to compare with" in done.output


@pytest.mark.parametrize(
    "verb", [("run",), ("curate", "--source", "clips", "--out", "data")], ids=["run", "curate"]
)
def test_a_store_that_is_no_bucket_is_named(
    verb: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_explained(call(*verb, "--store", "/data/store"), "/data/store", "s3://bucket/prefix")
    assert not list(tmp_path.iterdir())


def test_render_then_render_again(tmp_path: Path) -> None:
    arguments = ("storybook", "render", str(tmp_path / "clips"), "--count", "2", "--pictures", "1")
    first = call(*arguments)
    assert first.exit_code == 0, first.output
    assert len(list((tmp_path / "clips" / "clips").iterdir())) == 2
    assert call(*arguments).exit_code == 0
    assert_explained(call(*arguments, "--seed", "5"), str(tmp_path / "clips"))


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "Permission denied")]
)
def test_storage_troubles_are_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, words: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, "Permission denied" if number == errno.EACCES else "No space", "/data/x")

    monkeypatch.setattr("visavis.launch.cluster.packages.compile_pipeline", full)
    assert_explained(call("compile", "-o", str(tmp_path / "x.yaml")), words, "/data/x")


def test_ctrl_c_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("visavis.launch.cluster.packages.compile_pipeline", stop)
    result = call("compile")
    assert result.exit_code == 130
    assert "goes on" in result.stderr


def test_doctor_finds_what_is_wrong(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pack / "faces" / "net.onnx").unlink()
    monkeypatch.setattr("visavis.cli.doctor._LIBRARIES", {"json": "reading", "no_such_library": "nothing"})
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it takes seconds
    disk = shutil.disk_usage(pack)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk._replace(free=1 << 20))
    findings = {finding.subject: finding for finding in examine(str(pack), 0, pack / "runs")}
    assert findings["json"].verdict == "ok"
    for subject in ("no_such_library", "device", "disk", f"pack {pack}"):
        assert findings[subject].verdict == "missing"
        assert findings[subject].fix
    assert findings["python"].verdict == "ok"


def test_the_ablations_follow_the_run_and_end_with_the_claims(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pack: Path
) -> None:
    from visavis.launch.local import RunResult

    asked: dict[str, Any] = {}

    def run_ablations(recipe: Any, run: RunResult, **options: Any) -> None:
        asked.update(options, seed=recipe.seed)
        write_claims(tmp_path)

    monkeypatch.setattr("visavis.launch.local.run_local", lambda *_, **__: RunResult(tmp_path, "", ""))
    monkeypatch.setattr("visavis.launch.ablations.run_ablations", run_ablations)
    where = (f"pack={pack}", "seed=4", "--claims-page", str(tmp_path / "page.md"))
    result = call("run", "--recipe", "smoke", "--ablations", "--ablation-seeds", "2", *where)
    assert result.exit_code == 0, result.output
    assert (asked["seed"], asked["seeds"], asked["page"]) == (4, 2, tmp_path / "page.md")
    for words in ("undecided", "-1.00 to +2.00", "claims.json", "page.md"):
        assert words in result.stdout
    assert call("run", "--recipe", "smoke", "--ablations", "--ablation-seeds", "1").exit_code == 2


def write_claims(folder: Path) -> None:
    figure = {"value": 20.0, "ci95": [19.0, 21.0], "n": 2}
    claim = {
        "claim": "A beats B.",
        "unit": "dB",
        "treatment": figure,
        "control": figure,
        "verdict": "undecided",
    }
    difference = {"value": 0.5, "ci95": [-1.0, 2.0], "n": 2}
    content = {"claims": [{**claim, "difference": difference}], "context": "Recipe `smoke`."}
    (folder / "claims.json").write_text(json.dumps(content))


def test_claims_are_shown_with_their_places(tmp_path: Path) -> None:
    write_claims(tmp_path)
    console = Console(record=True, width=150, file=(tmp_path / "out").open("w"))
    show_claims(tmp_path, None, console)
    text = console.export_text()
    assert "A beats B. (dB)" in text
    assert str(tmp_path / "claims.md") in text


def test_the_summary_shows_funnel_and_times(tmp_path: Path) -> None:
    steps = [
        {"step": "curate_clips", "in": 10, "kept": 7, "dropped": {"no_face": 1, "one_person": 2}},
        {"step": "describe_clips", "in": 7, "kept": 7, "dropped": {}},
    ]
    (tmp_path / "funnel.json").write_text(json.dumps({"steps": steps, "holds": True}))
    timing = {"step": "curate_clips", "status": "ran", "seconds": 12.5, "peak_rss_mb": 321.0}
    reused = {**timing, "step": "describe_clips", "status": "reused", "seconds": 0.1}
    times = {"steps": [timing, reused], "seconds": 12.6, "peak_rss_mb": 321.0}
    (tmp_path / "timings.json").write_text(json.dumps(times))
    console = Console(record=True, width=150, file=(tmp_path / "out").open("w"))
    show(tmp_path, console)
    text = console.export_text()
    assert "2 one person, 1 no face" in text
    assert "12.6" in text
    assert "reused" in text
    assert "visavis chat" in text


def test_a_service_beyond_this_machine_needs_keys(tmp_path: Path) -> None:
    assert_explained(call("serve", "--host", "0.0.0.0"), "--host 0.0.0.0", "--keys", "--open-to-all")
    keys = tmp_path / "keys.yaml"
    made = call("key", "olivia", "--keys", str(keys))
    assert made.exit_code == 0 and made.stdout.startswith("vv-")
    assert made.stdout.split()[0] not in keys.read_text()
    assert_explained(call("key", "olivia", "--keys", str(keys)), "olivia")
    assert_explained(call("key", "a b", "--keys", str(keys)), "name")
    keys.write_text("- nonsense")
    assert_explained(call("serve", "--keys", str(keys)), "keys.yaml", "visavis key")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_explained(call("serve", "--port", str(port)), f"port {port} is in use")


def test_serving_nothing_is_explained(tmp_path: Path) -> None:
    assert_explained(call("serve", "--runs", str(tmp_path)), "there is no MLflow database")
    assert_explained(call("serve", "--model", str(tmp_path / "none")), "neither a model address nor a folder")
