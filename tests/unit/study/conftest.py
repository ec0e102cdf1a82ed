"""Lends the tests of this folder studies and databases."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from postgres_server import postgres_url  # noqa: E402, F401
from studies import make_study  # noqa: E402

from visavis.study.plan import Study  # noqa: E402
from visavis.study.votes import Votes  # noqa: E402


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Six items with prompt and face, for four raters each, one check for a rater."""
    return make_study(tmp_path, 6)


@pytest.fixture(params=["sqlite", "postgresql"])
def votes(request: pytest.FixtureRequest, study: Study, tmp_path: Path) -> Iterator[Votes]:
    """Its votes, in each database."""
    url = f"sqlite:///{tmp_path / 'votes.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    opened = Votes(url, study)
    yield opened
    opened.close()
