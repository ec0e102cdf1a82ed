"""The workflows for users' CI: what they call is there, what they use of others is pinned, and they may do little."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

every_workflow = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def steps_of(file: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(file.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_there_is_one_for_each_part() -> None:
    assert {file.stem for file in FILES} == {"checks", "images", "chart"}


@every_workflow
def test_foreign_actions_are_pinned_by_commit(file: Path) -> None:
    used = [step["uses"] for step in steps_of(file) if "uses" in step]
    assert used and all(re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", name) for name in used), used


@every_workflow
def test_what_it_makes_can_be_made(file: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {
        name for step in steps_of(file) for name in re.findall(r"\bmake ([a-z0-9-]+)", step.get("run", ""))
    }
    assert made and made <= targets, made - targets


@every_workflow
def test_it_may_read_and_no_more_but_where_it_pushes(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    assert content["permissions"] == {"contents": "read"}
    wider = {name for name, job in content["jobs"].items() if "write" in str(job.get("permissions"))}
    assert wider <= {"push"}
    for step in steps_of(file):
        assert "${{ secrets" not in step.get("run", ""), (
            "a secret belongs into env, where no shell expands it"
        )
        assert "github.event" not in step.get("run", ""), "words of strangers must not become a command"


@every_workflow
def test_every_job_has_a_limit(file: Path) -> None:
    assert all(job["timeout-minutes"] <= 120 for job in yaml.safe_load(file.read_text())["jobs"].values())
