"""The page's routes; `tests/e2e/test_study_page.py` looks at it in a browser."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from visavis.study.page import create_app
from visavis.study.plan import Study
from visavis.study.votes import Votes


@pytest.fixture
def client(study: Study, tmp_path: Path) -> Iterator[TestClient]:
    votes = Votes(f"sqlite:///{tmp_path / 'votes.db'}", study)
    with TestClient(create_app(votes)) as opened:
        yield opened
    votes.close()


@pytest.fixture
def token(client: TestClient) -> str:
    joined = client.post("/api/join", json={"name": "Olivia"})
    assert joined.status_code == 200
    return str(joined.json()["token"])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def state(client: TestClient, token: str) -> dict[str, Any]:
    answer = client.get("/api/state", headers=bearer(token))
    assert answer.status_code == 200
    return dict(answer.json())


def test_the_page_is_strict(client: TestClient, study: Study) -> None:
    first, second = client.get("/"), client.get("/")
    policy = first.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    nonce = re.findall(r"nonce-([\w-]+)", policy)
    assert len(set(nonce)) == 1 and f'<script nonce="{nonce[0]}">' in first.text
    assert nonce[0] not in second.text
    assert "{{" not in first.text and not re.search(r"https?://", first.text)
    assert first.headers["x-content-type-options"] == "nosniff"
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404


def test_nothing_that_a_browser_gets_unblinds(client: TestClient, token: str, study: Study) -> None:
    keys: set[frozenset[str]] = set()
    seen = client.get("/").text
    checks = {check.id for check in study.plan.checks}
    for _ in range(21):
        now = state(client, token)
        task = now["task"]
        keys.add(frozenset(task))
        ballot = {"item": task["item"], "question": task["question"], "answer": "left"}
        answer = client.post("/api/vote", json=ballot, headers=bearer(token))
        seen += json.dumps(now) + answer.text
        for side in ("left", "right", "face"):
            picture = client.get(f"/pictures/{task[side]}")
            seen += str(dict(picture.headers))
            assert picture.headers["content-type"] == "image/png"
            assert "last-modified" not in picture.headers
            assert Image.open(io.BytesIO(picture.content)).size == (96, 96)
        checks.discard(task["item"])
    assert not checks and len(keys) == 1, "an attention check looks like any item"
    assert not re.search(r"ours|theirs|is_check|\bwin\b|\d\d\.png", seen)
    assert state(client, token)["task"] is None


def test_votes_undo_and_doubles(client: TestClient, token: str) -> None:
    task = state(client, token)["task"]
    ballot = {"item": task["item"], "question": task["question"], "answer": "tie"}
    for _ in range(2):
        answer = client.post("/api/vote", json=ballot, headers=bearer(token)).json()
        assert answer["done"] == 1 and answer["task"]["question"] == "alignment"
    undone = client.post("/api/undo", json={}, headers=bearer(token)).json()
    assert undone["done"] == 0 and undone["task"] == task
    assert len(undone["ahead"]) == 6


def test_refusals_say_why(client: TestClient, token: str) -> None:
    for path in ("/api/vote", "/api/undo"):
        body = {"item": "x", "question": "quality", "answer": "left"}
        assert client.post(path, json=body, headers=bearer("stranger")).status_code == 401
    assert client.get("/api/state").status_code == 401
    refused = client.post(
        "/api/vote", json={"item": "x", "question": "quality", "answer": "left"}, headers=bearer(token)
    )
    assert refused.status_code == 409 and "not asked" in refused.json()["message"]
    broken = client.post("/api/vote", json={"item": 3}, headers=bearer(token))
    assert broken.status_code == 422 and "item" in broken.json()["message"]
    assert client.post("/api/join", json={"name": " "}).status_code == 409
    for name in ("none", "..%2Fplan.json", "plan"):
        assert client.get(f"/pictures/{name}").status_code == 404


def test_a_study_with_all_votes_lets_nobody_in(client: TestClient) -> None:
    for _ in range(4):
        assert client.post("/api/join", json={"name": "x"}).status_code == 200
    full = client.post("/api/join", json={"name": "late"})
    assert full.status_code == 409 and "all the votes it needs" in full.json()["message"]
