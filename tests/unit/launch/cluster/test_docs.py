"""The guide of operating: its files are read by what reads them, its commands are ones that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from visavis.cli import app
from visavis.launch.cluster.cron import kubeflow_cron
from visavis.launch.cluster.declared import read_schedules
from visavis.launch.cluster.target import read_target
from visavis.recipes import apply_overrides, recipe_named


@pytest.fixture
def guide(repository: Path) -> str:
    return (repository / "docs" / "operate.md").read_text()


def test_its_files_are_read(guide: str, tmp_path: Path) -> None:
    target_text, schedule_text = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "target.yaml").write_text(target_text)
    target = read_target(tmp_path / "target.yaml", environment={})
    target.needed("kfp.endpoint", "namespace", "store", "mlflow.uri")
    (tmp_path / "schedules.yaml").write_text(schedule_text)
    for schedule in read_schedules(tmp_path / "schedules.yaml"):
        assert kubeflow_cron(schedule.cron) and schedule.time_zone == target.kfp.time_zone
        assert apply_overrides(recipe_named(schedule.recipe), schedule.overrides).clips.source


def test_its_commands_are_there_with_their_options(guide: str) -> None:
    lines = re.findall(r"^\$ visavis (.*)$", guide, re.MULTILINE)
    assert len(lines) > 20
    for line in lines:
        words = shlex.split(line, comments=True)
        command = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), line
        context = typer.Context(command)
        command.parse_args(context, [*words])
