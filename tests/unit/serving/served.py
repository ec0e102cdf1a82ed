"""A service on a real port, for tests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from visavis.chat.model import ChatModel
from visavis.chat.talker import Talker
from visavis.serving.app import Service, create_app
from visavis.serving.engine import Engine
from visavis.serving.keys import Keys


@dataclass
class Served:
    """A running service.

    Attributes:
        url: Where it listens.
        service: What its routes share.
        server: The server; `should_exit` ends it as SIGTERM does.
    """

    url: str
    service: Service
    server: uvicorn.Server


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    model: ChatModel,
    *,
    keys: Keys | None = None,
    deadline: float = 20.0,
    most_bytes: int = 2**22,
    engine: dict[str, Any] | None = None,
    consent: str | None = None,
) -> Iterator[Served]:
    """Serves a model until the block ends; with the chat page if there is a sentence of consent, or an empty one."""
    made = Engine(Talker(model), "7", **(engine or {}))
    service = Service(made, keys or Keys(), deadline=deadline)
    port = free_port()
    app = create_app(service, most_bytes)
    if consent is not None:
        from visavis.serving.page import mount

        app = mount(app, service, consent)
    config = uvicorn.Config(app, port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not (server.started and made.ready.is_set()):
        assert time.monotonic() < until, "the service does not start"
        time.sleep(0.02)
    try:
        yield Served(f"http://127.0.0.1:{port}", service, server)
    finally:
        server.should_exit = True
        thread.join(20)
        made.close(5)
