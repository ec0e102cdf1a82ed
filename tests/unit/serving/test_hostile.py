"""Whatever comes in, the service answers with what it documents, and does not grow."""

from __future__ import annotations

import base64
import gc
import json
import random
import string
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from served import serving
from talking import SAYING, Painting


def resident_mib() -> float:
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


WORDS = [
    "<img>",
    "</s>",
    "[INST]",
    "[/INST]",
    "\0",
    "\ud800",
    "😀",
    "a" * 3000,
    SAYING,
    "",
    "<img_00000>",
    "\u202e",
]
URLS = [
    "http://localhost/x.png",
    "data:image/png;base64,",
    "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 64).decode(),
    "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff" + bytes(range(200))).decode(),
]


def anything(rng: random.Random, depth: int = 0) -> Any:
    """Returns a value of any kind, nested at times."""
    makers = [
        lambda: rng.choice(WORDS),
        lambda: rng.randint(-(2**70), 2**70),
        lambda: rng.choice([None, True, False, 1e308, -0.0, float("inf"), float("nan")]),
        lambda: [anything(rng, depth + 1) for _ in range(rng.randint(0, 3))] if depth < 4 else [],
        lambda: {rng.choice(string.ascii_letters): anything(rng, depth + 1)} if depth < 4 else {},
    ]
    return rng.choice(makers)()


def part(rng: random.Random) -> Any:
    return rng.choice(
        [
            {"type": "text", "text": rng.choice(WORDS)},
            {"type": "image_url", "image_url": {"url": rng.choice(URLS)}},
            {"type": rng.choice(["text", "image_url", "x"]), "text": anything(rng)},
        ]
    )


def message(rng: random.Random) -> Any:
    content = rng.choice([rng.choice(WORDS), [part(rng) for _ in range(rng.randint(0, 3))], anything(rng)])
    return {"role": rng.choice(["user", "assistant", "system", "wizard"]), "content": content}


def body(rng: random.Random) -> bytes:
    """Returns a request's body, mostly a chat with something wrong."""
    if rng.random() < 0.1:
        return bytes(rng.randrange(256) for _ in range(rng.randint(0, 200)))
    given: dict[str, Any] = {"messages": [message(rng) for _ in range(rng.randint(0, 5))]}
    for key in ("seed", "n", "size", "steps", "identity", "temperature", "stream", "pictures", "model"):
        if rng.random() < 0.15:
            given[key] = anything(rng)
    if rng.random() < 0.1:
        given["prompt"] = anything(rng)
    return json.dumps(given).encode("utf-8", "surrogatepass")


@pytest.mark.slow
def test_a_thousand_odd_requests(model: Painting) -> None:
    rng = random.Random(20)
    with serving(model) as served, httpx.Client(base_url=served.url, timeout=30) as client:

        def send(count: int) -> list[int]:
            codes = []
            for _ in range(count):
                route = rng.choice(["/v1/chat/completions"] * 4 + ["/v1/images/generations"])
                content = body(rng)
                headers = {"Content-Type": rng.choice(["application/json"] * 5 + ["text/plain", "x"])}
                response = client.post(route, content=content, headers=headers)
                assert response.status_code < 500, (route, content[:300], response.text[:300])
                if response.status_code >= 400:
                    assert response.json()["error"]["message"], content[:300]
                codes.append(response.status_code)
            return codes

        send(200)
        before = resident_mib()
        codes = send(800)
        assert resident_mib() - before < 40, "the service grows"
        assert 200 in codes and codes.count(400) > 400
        asked = {"messages": [{"role": "user", "content": SAYING}]}
        assert client.post("/v1/chat/completions", json=asked).status_code == 200


@pytest.mark.slow
def test_the_service_does_what_its_openapi_says(model: Painting) -> None:
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.checks.status_code_conformance,
        schemathesis.checks.content_type_conformance,
        schemathesis.checks.response_schema_conformance,
    ]
    with serving(model) as served:
        schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        for operation in operations:
            # What has no body cannot be wrong.
            modes = [m for m in schemathesis.GenerationMode if m.is_positive or operation.method == "post"]
            strategies = [operation.as_strategy(generation_mode=mode) for mode in modes]
            for strategy in strategies:

                @given(case=strategy)
                @settings(
                    max_examples=60,
                    deadline=None,
                    derandomize=True,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                def check(case: Any) -> None:
                    case.validate_response(case.call(), checks=checks)

                check()
    assert {operation.path for operation in operations} >= {"/v1/chat/completions", "/v1/images/generations"}
