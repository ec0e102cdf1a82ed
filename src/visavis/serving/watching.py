"""What an operator sees of the service: Prometheus figures, structured logs, OpenTelemetry traces.

None of them holds what users say or show.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis.serving.engine import Engine, log

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_QUIET = ("/healthz", "/readyz", "/metrics")


class Watcher:
    """Counts what the service does; each has figures of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "visavis_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "visavis_request_seconds",
            "Seconds of a request by route.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._pictures = Counter("visavis_pictures", "Pictures that were painted.", registry=self.registry)
        self._batch = Histogram(
            "visavis_batch_requests",
            "Requests that were answered together.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "visavis_batch_seconds", "Seconds of a batch.", buckets=_SECONDS, registry=self.registry
        )
        self._gauges = {
            name: Gauge(f"visavis_{name}", words, registry=self.registry)
            for name, words in {
                "queue_requests": "Requests that wait.",
                "ready": "Whether the model answers.",
                "memory_bytes": "Bytes of what was read of chats.",
                "memory_hits": "Spans of chats that were remembered.",
                "memory_misses": "Spans of chats that had to be read.",
            }.items()
        }

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def painted(self, count: int) -> None:
        """Counts pictures."""
        self._pictures.inc(count)

    def batch(self, requests: int, seconds: float) -> None:
        """Counts a batch."""
        self._batch.observe(requests)
        self._batch_seconds.observe(seconds)

    def exposition(self, engine: Engine) -> tuple[bytes, str]:
        """Returns all figures in Prometheus' text format, and its media type."""
        memories = engine.talker.memories
        for name, value in {
            "queue_requests": engine.waiting,
            "ready": engine.ready.is_set(),
            "memory_bytes": memories.used,
            "memory_hits": memories.hits,
            "memory_misses": memories.misses,
        }.items():
            self._gauges[name].set(value)
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _Observer:
    """ASGI middleware that counts and logs each request."""

    def __init__(self, app: ASGIApp, watcher: Watcher) -> None:
        self.app, self.watcher = app, watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            seconds = time.monotonic() - began
            route = getattr(scope.get("route"), "path", "other")
            if route == "other" and scope["path"] in _QUIET:
                route = scope["path"]
            self.watcher.request(route, status, seconds)
            if route not in _QUIET:
                facts: dict[str, Any] = {"route": route, "status": status, "seconds": round(seconds, 3)}
                owner = scope.get("state", {}).get("owner")
                log.info("request", extra={"facts": facts | ({"owner": owner} if owner else {})})


class JsonLines(logging.Formatter):
    """A log line as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; traces are named so that logs and spans can be joined."""
        span = trace.get_current_span().get_span_context()
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if span.is_valid:
            line["trace"] = f"{span.trace_id:032x}"
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def observed(app: FastAPI, watcher: Watcher) -> None:
    """Counts, logs and traces all requests of an application."""
    app.add_middleware(_Observer, watcher=watcher)
    FastAPIInstrumentor.instrument_app(app, excluded_urls="healthz,readyz,metrics")


def log_lines(level: int = logging.INFO) -> None:
    """Writes the service's log to standard error, a JSON object a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    log.handlers, log.propagate = [handler], False
    log.setLevel(level)


def send_traces() -> None:
    """Sends traces to `OTEL_EXPORTER_OTLP_ENDPOINT`, if that is set."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "visavis"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
