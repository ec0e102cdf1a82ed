"""What an operator sees: logs and traces of every request, and nothing of what was said in it."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from served import serving
from talking import SAYING, Painting

from visavis.files import sha256_bytes
from visavis.serving.keys import ApiKey, Keys
from visavis.serving.watching import JsonLines, log, log_lines


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # once in a process
    return exporter


def test_logs_and_traces_hold_no_content(
    model: Painting, spans: InMemorySpanExporter, capsys: pytest.CaptureFixture[str]
) -> None:
    log_lines()
    keys = Keys([ApiKey(name="olivia", sha256=sha256_bytes(b"secret"))])
    with serving(model, keys=keys) as served:
        body = {"messages": [{"role": "user", "content": SAYING}]}
        headers = {"Authorization": "Bearer secret"}
        url = f"{served.url}/v1/chat/completions"
        assert httpx.post(url, json=body, headers=headers).status_code == 200
        assert httpx.post(url, json={"messages": SAYING}, headers=headers).status_code == 400
        assert httpx.get(f"{served.url}/healthz").status_code == 200
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    asked = [line for line in lines if line["message"] == "request"]
    assert [(line["route"], line["status"]) for line in asked] == [
        ("/v1/chat/completions", 200),
        ("/v1/chat/completions", 400),
    ]
    assert asked[0]["owner"] == "olivia"
    names = [span.name for span in spans.get_finished_spans()]
    assert "answer" in names and any("/v1/chat/completions" in name for name in names)
    everything = json.dumps(lines) + "".join(span.to_json() for span in spans.get_finished_spans())
    for word in ("Julian", "secret", "base64"):
        assert word not in everything


def test_a_line_holds_the_error() -> None:
    try:
        raise ValueError("what went wrong")
    except ValueError:
        record = log.makeRecord("x", logging.ERROR, "f", 1, "failed", (), __import__("sys").exc_info())
    line = json.loads(JsonLines().format(record))
    assert line["level"] == "error" and "what went wrong" in line["error"]
