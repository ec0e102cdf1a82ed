"""Forgetting: who is found where, a data set without them, versions that say so, and nothing else changed."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from disc_dataset import STEPS, make_dataset
from editing_world import session, write_tables
from typer import Typer
from typer.testing import CliRunner

from visavis.cli.forget import forget as verb
from visavis.data.chats.importers import import_editing
from visavis.data.config import ConversationConfig
from visavis.data.funnel import check_funnel
from visavis.data.ledger import read_ledger
from visavis.data.published.dataset import read_dataset, verify
from visavis.data.published.forget import find_target
from visavis.data.published.origins import read_origins
from visavis.data.published.shards import read_index
from visavis.data.published.validation import validate
from visavis.errors import VisavisError
from visavis.files import read_json, sha256_file, write_json, write_jsonl
from visavis.registry.forgetting import mark, versions_made_of
from visavis.registry.versions import find
from visavis.steps.contracts import Manifest
from visavis.steps.forget import forget, results_with
from visavis.steps.store import open_store
from visavis.tracking import client_for

COUNTS = {"in": 1, "kept": 1, "dropped": {}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs as they lie on disk: one made of the data set up to a scorecard, one of other data."""
    folder = tmp_path_factory.mktemp("runs")
    made = make_dataset(tmp_path_factory.mktemp("made"))
    inputs: dict[str, dict[str, str]] = {
        "encode_images": {"conversations": "build_conversations"},
        "tune_mllm_pair": {"conversations": "build_conversations", "tokens": "encode_images"},
        "evaluate_model": {"mllm": "tune_mllm_pair", "conversations": "build_conversations"},
    }
    for step in (*STEPS, *inputs):
        place = folder / "store" / step / f"key-{step}"
        if step in made:
            shutil.copytree(made[step], place)
        stored(place, step, {name: f"key-{given}" for name, given in inputs.get(step, {}).items()})
    stored(folder / "store" / "tune_mllm_pair" / "key-other", "tune_mllm_pair", {"conversations": "key-none"})
    for run, keys in {"run-a": ("curate_clips", "evaluate_model"), "run-b": ("tune_mllm_pair",)}.items():
        for step in keys:
            key = f"key-{step}" if run == "run-a" else "key-other"
            manifest = Manifest.read(folder / "store" / step / key / "manifest.json")
            write_json(folder / run / "manifests" / f"{step}.json", manifest.model_dump())
    (folder / "latest").symlink_to("run-a")
    return folder


def stored(place: Path, step: str, inputs: dict[str, str]) -> None:
    manifest = Manifest(step=step, key=place.name, uri=str(place), counts=COUNTS, files={}, inputs=inputs)
    write_json(place / "manifest.json", manifest.model_dump())


@pytest.fixture(scope="module")
def data(runs: Path) -> Path:
    return runs / "store" / "build_conversations" / "key-build_conversations"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    address = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    client_for(address).search_registered_models()
    return address


@pytest.fixture
def uri(database: str, data: Path) -> Iterator[str]:
    """A registry with one version made of the data set, one of a copy of it, and one of other data."""
    client = client_for(database)
    client.create_registered_model("faces")
    for tags in (
        {"data.manifest": "key-build_conversations"},
        {"data.digest": read_dataset(data)["digest"]},
        {"data.manifest": "key-none"},
    ):
        client.create_model_version("faces", source="models", tags=tags)
    client.set_registered_model_alias("faces", "champion", "1")
    yield database
    client.delete_registered_model("faces")


def raw_members(folder: Path, gone: set[str]) -> dict[str, list[bytes]]:
    """The headers and contents of the tars' members, as they lie there, by split."""
    found: dict[str, list[bytes]] = {}
    for shard in sorted(folder.glob("*.tar")):
        content = shard.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                if member.name.partition(".")[0] not in gone:
                    end = member.offset_data + (member.size + 511) // 512 * 512
                    found.setdefault(shard.name[:4], []).append(content[member.offset : end])
    return found


def someone(data: Path, clips: int = 1) -> tuple[str, list[str]]:
    people: dict[str, list[str]] = read_json(data / "splits.json")["people"]
    return next((name, items) for name, items in people.items() if len(items) >= clips)


def test_a_clip_is_taken_out_and_all_else_keeps_its_bytes(data: Path, tmp_path: Path) -> None:
    clip = next(row["clip_id"] for row in read_index(data) if row["set"] == "rounds")
    gone = {row["id"] for row in read_index(data) if row["clip_id"] == clip}
    before = {path.name: sha256_file(path) for path in data.iterdir()}
    report = forget(clip[:10], data, out=tmp_path / "out", apply=True)
    assert (report.target.kind, report.target.items, sum(report.held.shards.values())) == (
        "clip",
        (clip,),
        len(gone),
    )
    assert {path.name: sha256_file(path) for path in data.iterdir()} == before

    out = tmp_path / "out"
    assert verify(out) == [] and validate(out).passed
    assert read_dataset(out)["digest"] != read_dataset(data)["digest"]
    assert raw_members(out, set()) == raw_members(data, gone)
    kept = [
        {k: v for k, v in row.items() if k != "shard"} for row in read_index(data) if row["id"] not in gone
    ]
    assert [{k: v for k, v in row.items() if k != "shard"} for row in read_index(out)] == kept
    summary = read_json(out / "summary.json")
    assert summary["samples"] == len(kept) and sum(summary["rounds"]["styles"].values()) == sum(
        row["set"] == "rounds" for row in kept
    )
    assert (
        sum(summary["clips"].values()) == len({row["clip_id"] for row in kept if row["set"] == "rounds"}) == 9
    )


def test_what_is_left_says_nothing_of_it_but_its_id(data: Path, tmp_path: Path) -> None:
    person, items = someone(data)
    origin = next(row for row in read_origins(data) if row["item"] == items[0])
    forget(person, data, out=tmp_path / "out", apply=True)
    for path in (tmp_path / "out").iterdir():
        text = path.read_bytes().decode("utf-8", "replace")
        assert person not in text and origin["source_uri"] not in text, path.name
        # Without the ids, curation could not leave them out.
        assert (items[0] in text) == (path.name in ("forgotten.json", "ledger.jsonl")), path.name
    rows = {row.item_id: row for row in read_ledger(tmp_path / "out" / "ledger.jsonl")}
    assert (rows[items[0]].reason, rows[items[0]].detail) == ("forgotten", {})
    funnel = read_json(tmp_path / "out" / "funnel.json")
    check_funnel(funnel)
    assert funnel[-1]["dropped"] == {"forgotten": len(items)}
    assert "forgotten" in (tmp_path / "out" / "viewer.html").read_text()


def test_a_person_takes_all_their_clips_along(data: Path, tmp_path: Path) -> None:
    """The world has nobody in two clips, so two people of different clips are made one."""
    joined = Path(shutil.copytree(data, tmp_path / "joined"))
    splits = read_json(joined / "splits.json")
    (one, first), (_, second) = [
        pair for pair in splits["people"].items() if splits["items"][pair[1][0]] == "train"
    ][:3:2]
    assert first != second
    splits["people"][one] = sorted([*first, *second])
    write_json(joined / "splits.json", splits)
    manifest = read_json(joined / "dataset.json")
    path = joined / "splits.json"
    manifest["files"]["splits.json"] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    write_json(joined / "dataset.json", manifest)
    report = forget(one, joined, out=tmp_path / "out", apply=True)
    assert report.target.kind == "person" and set(report.target.items) == {*first, *second}
    left = {row["clip_id"] for row in read_index(tmp_path / "out")}
    assert left == {row["clip_id"] for row in read_index(data)} - {*first, *second}


def test_a_source_names_its_clip_and_a_picture_is_an_item_too(data: Path, tmp_path: Path) -> None:
    origins = read_origins(data)
    clip = next(row for row in origins if row["kind"] == "clip")
    assert find_target(data, clip["source_uri"]).items == (clip["item"],)
    scenes = Path(shutil.copytree(data, tmp_path / "scenes"))
    write_jsonl(
        scenes / "origins.jsonl", [row | {"source_uri": "film.mp4"} for row in origins[:3]] + origins[3:]
    )
    film = find_target(scenes, "film.mp4")
    assert (film.kind, set(film.items)) == ("source", {row["item"] for row in origins[:3]})
    picture = next(row["item"] for row in origins if row["kind"] == "picture")
    report = forget(picture, data, out=tmp_path / "out", apply=True)
    assert (report.target.kind, report.held.sets) == ("picture", {"natural": 1})
    assert validate(tmp_path / "out").passed


def test_an_imported_set_can_forget_too(tmp_path: Path) -> None:
    config = ConversationConfig(title="Edits", shares={"train": 0.5, "val": 0.25, "test": 0.25})
    import_editing(
        "magicbrush", write_tables(tmp_path / "in", [session(n, 2) for n in range(8)]), tmp_path / "a", config
    )
    source = read_index(tmp_path / "a")[0]["clip_id"]
    report = forget(source, tmp_path / "a", out=tmp_path / "b", apply=True)
    assert (report.target.kind, report.held.sets) == ("picture", {"editing": 1})
    assert validate(tmp_path / "b").passed and len(read_index(tmp_path / "b")) == 7
    assert sum(read_json(tmp_path / "b" / "summary.json")["clips"].values()) == 7
    assert read_json(tmp_path / "b" / "funnel.json")[-1]["kept"] == 7
    rows = read_ledger(tmp_path / "b" / "ledger.jsonl")
    assert [row.reason for row in rows].count("forgotten") == 1 and len(rows) == 8
    assert source not in (tmp_path / "b" / "ledger.jsonl").read_text()


def test_the_unknown_is_an_error_with_the_nearest(data: Path) -> None:
    person, _ = someone(data)
    wrong = person[:-1] + ("0" if person[-1] != "0" else "1")
    with pytest.raises(VisavisError, match=f"{wrong}.* is no clip.* the nearest is {person}"):
        forget(wrong, data)
    clip = read_index(data)[0]["clip_id"]
    with pytest.raises(VisavisError, match=f"the nearest is {clip[:16]}…"):
        forget("0" + clip[1:12], data)
    with pytest.raises(VisavisError, match="is no clip"):
        forget(clip[:3], data)
    with pytest.raises(VisavisError, match=r"dataset\.json is missing|holds no conversations"):
        forget("x", data.parent)


def test_a_dry_run_lists_everything_and_changes_nothing(
    data: Path, runs: Path, uri: str, tmp_path: Path
) -> None:
    person, items = someone(data)
    report = forget(person, data, runs=runs, tracking_uri=uri)
    steps = {result.partition("/")[0] for result in report.results}
    assert steps == {*STEPS, "encode_images", "tune_mllm_pair", "evaluate_model"}
    assert "tune_mllm_pair/key-other" not in report.results
    assert report.runs == ("run-a",)
    assert [version.uri for version in report.versions or ()] == ["models:/faces/1", "models:/faces/2"]
    assert report.out is not None and not report.out.exists() and not report.applied
    assert "forget.requested" not in find("models:/faces/1", tracking_uri=uri).tags
    words = str(report)
    for part in (person, items[0], "run-a", "models:/faces/1 (champion)", "not written", "would be marked"):
        assert part in words


def test_applying_marks_the_versions_and_twice_is_as_once(
    data: Path, runs: Path, uri: str, tmp_path: Path
) -> None:
    person, items = someone(data)
    where: dict[str, Any] = {"runs": runs, "tracking_uri": uri, "apply": True}
    forget(person, data, out=tmp_path / "out", **where)
    tags = find("models:/faces/1", tracking_uri=uri).tags
    assert (tags["forget.requested"], tags["forget.what"]) == ("true", person)
    assert datetime.fromisoformat(tags["forget.when"]).tzinfo == UTC
    assert "forget.requested" not in find("models:/faces/3", tracking_uri=uri).tags

    written = {path.name: sha256_file(path) for path in (tmp_path / "out").iterdir()}
    forget(person, data, out=tmp_path / "out", **where)
    assert {path.name: sha256_file(path) for path in (tmp_path / "out").iterdir()} == written
    assert find("models:/faces/1", tracking_uri=uri).tags == tags

    # In the data set without them, the request is known; what was made of the old one is still found.
    for again in (person, items[0], items[0][:12]):
        report = forget(again, tmp_path / "out", **where)
        assert (report.target.kind, report.target.items, report.out) == ("forgotten", tuple(items), None)
        assert report.runs == ("run-a",) and len(report.versions or ()) == 2
        assert "nothing is left to write" in str(report)
    assert {path.name: sha256_file(path) for path in (tmp_path / "out").iterdir()} == written
    assert find("models:/faces/1", tracking_uri=uri).tags["forget.what"] == f"{person}, {items[0]}"


def test_a_second_person_is_added_to_the_first(data: Path, tmp_path: Path, uri: str) -> None:
    people: dict[str, list[str]] = read_json(data / "splits.json")["people"]
    one, other = (
        next(iter(people)),
        next(name for name in people if people[name] != next(iter(people.values()))),
    )
    forget(one, data, out=tmp_path / "a", apply=True)
    forget(other, tmp_path / "a", out=tmp_path / "b", apply=True)
    assert read_json(tmp_path / "b" / "forgotten.json")["items"] == sorted({*people[one], *people[other]})
    assert validate(tmp_path / "b").passed
    version = versions_made_of({"key-build_conversations"}, tracking_uri=uri)[0]
    at = datetime(2030, 1, 1, tzinfo=UTC)
    version = mark(version, one, tracking_uri=uri, when=at)
    version = mark(version, other, tracking_uri=uri)
    assert version.tags["forget.what"] == f"{one}, {other}" and version.tags["forget.when"] != at.isoformat()


def test_places_that_must_not_be_written_are_refused(data: Path, tmp_path: Path) -> None:
    person, _ = someone(data)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    for out, words in (
        (data, "the data set itself"),
        (data / "sub", "the data set itself"),
        (tmp_path / "mine", "something else than a data set"),
    ):
        with pytest.raises(VisavisError, match=words):
            forget(person, data, out=out, apply=True)
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_a_damaged_data_set_is_not_made_whole_by_forgetting(data: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(data, tmp_path / "broken"))
    shard = sorted(broken.glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:-512] + bytes(511) + b"1")
    with pytest.raises(VisavisError, match=f"is damaged: {shard.name} has another sha256"):
        forget(someone(data)[0], broken, out=tmp_path / "out", apply=True)
    assert not (tmp_path / "out").exists()


def test_dropped_clips_are_known_to_their_steps_only(runs: Path, data: Path) -> None:
    kept = read_index(data)[0]["clip_id"]
    assert len(results_with([kept], open_store(str(runs / "store")))) == 7
    assert results_with(["0" * 64], open_store(str(runs / "store"))) == {}


def test_the_verb_prints_the_report_and_what_to_do_next(data: Path, tmp_path: Path) -> None:
    app = Typer()
    app.command()(verb)
    person, _ = someone(data)
    out = tmp_path / "out"
    command = [person, "--data", str(data), "--out", str(out), "--runs", str(tmp_path / "none")]
    dry = CliRunner().invoke(app, command)
    assert dry.exit_code == 0, dry.output
    assert "repeat the command with --apply" in dry.output and not out.exists()
    done = CliRunner().invoke(app, [*command, "--apply"])
    assert done.exit_code == 0, done.output
    assert "no registry was asked" in done.output and "curate.forgotten" in done.output
    assert validate(out).passed
    refused = CliRunner().invoke(app, [person, "--data", str(tmp_path / "nowhere")])
    assert isinstance(refused.exception, VisavisError)
