"""Schedules: a file is brought onto the cluster, twice is once, and only what differs is made anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_server import KfpServer

from visavis.launch.cluster.schedules import MARK

Call = Callable[..., Any]
WEEKLY = {
    "name": "weekly",
    "cron": "0 3 * * mon",
    "pipeline": "curate",
    "recipe": "smoke",
    "overrides": ["clips.source=s3://clips/all"],
}
NIGHTLY = {
    **WEEKLY,
    "name": "nightly",
    "cron": "@daily",
    "paused": True,
    "max_concurrency": 2,
    "catch_up": True,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "schedules.yaml", WEEKLY, NIGHTLY)


def write(path: Path, *schedules: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"schedules": list(schedules)}))
    return path


def by_name(server: KfpServer) -> dict[str, dict[str, Any]]:
    return {one["display_name"]: one for one in server.schedules.values()}


def writes(server: KfpServer) -> list[str]:
    return [line for line in server.requests if not line.startswith("GET")]


def test_a_schedule_is_as_declared(call: Call, server: KfpServer, file: Path) -> None:
    said = call("schedule", "apply", str(file)).stdout
    assert "create  weekly" in said and "create  nightly" in said
    weekly, nightly = by_name(server)["weekly"], by_name(server)["nightly"]
    assert weekly["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * mon"}}
    assert (weekly["no_catchup"], weekly["max_concurrency"], weekly["mode"]) == (True, "1", "ENABLE")
    assert (nightly["no_catchup"], nightly["max_concurrency"], nightly["mode"]) == (False, "2", "DISABLE")
    assert nightly["trigger"] == {"cron_schedule": {"cron": "@daily"}}
    assert weekly["namespace"] == "team-a" and weekly["description"] == MARK
    context = json.loads(weekly["runtime_config"]["parameters"]["context"])
    # Kubeflow puts in the id of each run; a fixed folder would be shared by all of them.
    assert context["run_dir"] == "s3://results/faces/runs/{{workflow.uid}}"
    assert "paused" in call("schedule", "list").stdout


def test_twice_is_once(call: Call, server: KfpServer, file: Path) -> None:
    call("schedule", "apply", str(file))
    before, asked = dict(server.schedules), len(writes(server))
    said = call("schedule", "apply", str(file)).stdout
    assert said.count("unchanged") == 2 and "create" not in said
    assert server.schedules == before and len(writes(server)) == asked


def test_only_what_differs_is_made_anew(call: Call, server: KfpServer, file: Path) -> None:
    call("schedule", "apply", str(file))
    old = by_name(server)
    write(
        file,
        {**WEEKLY, "cron": "30 4 * * mon", "overrides": [*WEEKLY["overrides"], "curate.min_face=0.3"]},
        NIGHTLY,
    )
    asked = len(writes(server))
    dry = call("schedule", "apply", str(file), "--dry-run").stdout
    assert len(writes(server)) == asked and by_name(server) == old
    assert "update  weekly" in dry and "unchanged  nightly" in dry
    assert "cron: 0 0 3 * * mon -> 0 30 4 * * mon" in dry
    assert "recipe.curate.min_face: 0.08 -> 0.3" in dry
    assert call("schedule", "apply", str(file)).stdout == dry
    new = by_name(server)
    assert new["nightly"] == old["nightly"] and len(server.schedules) == 2
    assert new["weekly"]["recurring_run_id"] != old["weekly"]["recurring_run_id"]
    # The old one goes only when the new one is there.
    assert [line.split()[0] for line in writes(server)[asked:]] == ["POST", "DELETE"]


def test_new_code_is_a_difference(call: Call, server: KfpServer, file: Path, cluster_file: Path) -> None:
    call("schedule", "apply", str(file))
    values = yaml.safe_load(cluster_file.read_text())
    values["images"]["tools"] = f"registry.example.org/visavis-tools@sha256:{'c' * 64}"
    cluster_file.write_text(yaml.safe_dump(values))
    said = call("schedule", "apply", str(file)).stdout
    assert said.count("update") == 2 and "pipeline: " in said
    assert len(server.versions) == 2
    assert call("schedule", "apply", str(file)).stdout.count("unchanged") == 2


def test_what_a_crash_left_double_is_made_single(call: Call, server: KfpServer, file: Path) -> None:
    call("schedule", "apply", str(file))
    weekly = by_name(server)["weekly"]
    stale = {**weekly, "recurring_run_id": "stale", "trigger": {"cron_schedule": {"cron": "0 0 1 * * mon"}}}
    server.schedules = {"stale": stale, **server.schedules}
    said = call("schedule", "apply", str(file)).stdout
    assert "copies: 2 -> 1" in said
    assert "stale" not in server.schedules and weekly["recurring_run_id"] in server.schedules
    assert call("schedule", "apply", str(file)).stdout.count("unchanged") == 2


def test_only_what_was_declared_is_pruned_and_only_when_asked(
    call: Call, server: KfpServer, file: Path
) -> None:
    call("schedule", "apply", str(file))
    by_hand = {
        **by_name(server)["weekly"],
        "recurring_run_id": "hand",
        "display_name": "by-hand",
        "description": "mine",
    }
    server.schedules["hand"] = by_hand
    write(file, WEEKLY)
    said = call("schedule", "apply", str(file)).stdout
    assert "left  nightly" in said and "--prune" in said and "by-hand" not in said
    dry = call("schedule", "apply", str(file), "--prune", "--dry-run").stdout
    assert "delete  nightly" in dry and "nightly" in by_name(server)
    call("schedule", "apply", str(file), "--prune")
    assert set(by_name(server)) == {"weekly", "by-hand"}


def test_pause_resume_delete(call: Call, server: KfpServer, file: Path) -> None:
    call("schedule", "apply", str(file))
    identity = by_name(server)["weekly"]["recurring_run_id"]
    call("schedule", "pause", "weekly")
    assert by_name(server)["weekly"]["mode"] == "DISABLE"
    said = call("schedule", "apply", str(file)).stdout
    assert "paused: true -> false" in said
    assert by_name(server)["weekly"]["mode"] == "ENABLE"
    assert by_name(server)["weekly"]["recurring_run_id"] == identity
    call("schedule", "pause", "weekly")
    call("schedule", "resume", "weekly")
    assert by_name(server)["weekly"]["mode"] == "ENABLE"
    call("schedule", "delete", "weekly")
    assert set(by_name(server)) == {"nightly"}
    assert "schedules there: nightly" in call("schedule", "delete", "weekly", code=2).stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cron": "0 3 * *"}, ("weekly", "4 fields, not five")),
        ({"cron": "0 0 3 * * mon"}, ("6 fields, not five",)),
        ({"cron": "0 25 * * *"}, ("hour '25' is out of bounds",)),
        ({"cron": "0 3 * * 7"}, ("day of the week '7'",)),
        ({"time_zone": "Europe/Berlin"}, ("Europe/Berlin", "cronScheduleTimezone")),
        ({"time_zone": "Mars/Olympus"}, ("'Mars/Olympus' does not exist",)),
        ({"recipe": "smok"}, ("did you mean 'smoke'",)),
        ({"overrides": []}, ("clips.source is empty",)),
        ({"overrides": ["clips.source=s3://c", "curate.min_fac=1"]}, ("did you mean curate.min_face",)),
        ({"pipeline": "trains"}, ("trains.py",)),
        ({"max_concurrency": 0}, ("max_concurrency",)),
        ({"kron": "x"}, ("kron",)),
        ({"name": "Weekly Train"}, ("name",)),
    ],
)
def test_a_wrong_entry_is_named_and_nothing_is_changed(
    call: Call, server: KfpServer, file: Path, change: dict[str, Any], words: tuple[str, ...]
) -> None:
    write(file, NIGHTLY, {**WEEKLY, **change})
    refused = call("schedule", "apply", str(file), code=2).stderr
    for word in words:
        assert word in refused
    assert not server.schedules and not server.pipelines


def test_wrong_files(call: Call, file: Path) -> None:
    write(file, WEEKLY, WEEKLY)
    assert "two schedules of the name weekly" in call("schedule", "apply", str(file), code=2).stderr
    assert "does not exist" in call("schedule", "apply", "no.yaml", code=2).stderr
    file.write_text("schedules: [")
    assert "cannot be read" in call("schedule", "apply", str(file), code=2).stderr


def test_the_cluster_may_read_schedules_in_another_zone(
    call: Call, server: KfpServer, file: Path, cluster_file: Path
) -> None:
    values = yaml.safe_load(cluster_file.read_text())
    values["kfp"]["time_zone"] = "Europe/Berlin"
    cluster_file.write_text(yaml.safe_dump(values))
    write(file, {**WEEKLY, "time_zone": "Europe/Berlin"})
    call("schedule", "apply", str(file))
    assert len(server.schedules) == 1


def test_a_recipe_lies_beside_the_file(call: Call, server: KfpServer, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "git"
    folder.mkdir()
    shown = call("recipe", "show", "smoke", "clips.source=s3://clips/all", "curate.min_face=0.4").stdout
    (folder / "mine.yaml").write_text(shown)
    call(
        "schedule", "apply", str(write(folder / "s.yaml", {**WEEKLY, "recipe": "mine.yaml", "overrides": []}))
    )
    recipe = json.loads(by_name(server)["weekly"]["runtime_config"]["parameters"]["recipe"])
    assert recipe["curate"]["min_face"] == 0.4
