"""The step `list_clips`: what it leaves where a source holds nothing, and where it is not asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from visavis.errors import VisavisError
from visavis.files import read_json
from visavis.recipes import apply_overrides, recipe_named
from visavis.steps.contracts import RunContext
from visavis.steps.list_clips import list_clips


def listed(tmp_path: Path, source: Path, **context: object) -> Path:
    recipe = apply_overrides(recipe_named("smoke"), [f"clips.source={source}"])
    run = RunContext(store=str(tmp_path / "store"), run_dir=str(tmp_path / "run"), run_name="r", **context)
    output = tmp_path / "out.json"
    list_clips(recipe.model_dump_json(), run.model_dump_json(), {}, output)
    return output


def test_an_empty_source_is_noted_as_the_reason_of_the_failure(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with pytest.raises(VisavisError, match="holds no clips"):
        listed(tmp_path, tmp_path / "clips")
    note = read_json(tmp_path / "run" / "failures" / "list_clips.json")
    assert note["step"] == "list_clips" and "holds no clips" in note["message"] and note["fix"]


def test_a_run_that_begins_later_does_not_look_for_clips(tmp_path: Path) -> None:
    assert read_json(listed(tmp_path, tmp_path / "nowhere", skipped=["list_clips"]))["files"] == {}
