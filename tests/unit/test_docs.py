"""The pages name files, commands and pages that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from visavis.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_PATH = re.compile(
    r"`((?:tests|src|docs|pipelines|components|charts|containers|benchmarks|tools|\.github)(?:/[\w.{}*-]+)*)`"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    text = page.read_text()
    for name in _PATH.findall(text):
        assert any(ROOT.glob(name)) or (ROOT / name).exists(), f"{page.name}: {name}"
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_that_a_page_names_exists(page: Path) -> None:
    group = get_command(app)
    for line in re.findall(r"(?:^\$ |`|\.venv/bin/)(visavis [^`\n]*)", page.read_text(), re.MULTILINE):
        words = (
            shlex.split(line.split(" #")[0].rstrip(".,;:"), posix=True) if line.count("'") % 2 == 0 else []
        )
        command = group
        for word in words[1:]:
            inner = getattr(command, "commands", {})
            if not inner or word.startswith("-"):
                break
            if not re.fullmatch(r"[a-z-]+", word):
                break
            assert word in inner, f"{page.name}: {line}"
            command = inner[word]


def test_the_table_of_features_is_whole() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "features.md").read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == list(range(1, 81))
