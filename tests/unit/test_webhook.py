"""Webhooks of our own: signed, tried again, and an address that refuses is named."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from visavis.errors import VisavisError
from visavis.tracking.webhook import SECRET, notify


class Listener:
    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.taken: list[tuple[dict[str, str], bytes]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = listener.statuses.pop(0) if listener.statuses else 200
                if status == 200:
                    listener.taken.append((dict(self.headers), body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_an_event_arrives_once_with_a_signature_that_holds(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "between us")
    notify(listener.url, "visavis.drift", {"model": "models:/visavis/1"})
    ((headers, body),) = listener.taken
    assert json.loads(body) == {"event": "visavis.drift", "content": {"model": "models:/visavis/1"}}
    said = f"{headers['X-Visavis-Delivery-Id']}.{headers['X-Visavis-Timestamp']}.{body.decode()}"
    digest = hmac.new(b"between us", said.encode(), hashlib.sha256).digest()
    assert headers["X-Visavis-Signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_a_server_that_is_busy_is_asked_again(listener: Listener) -> None:
    listener.statuses = [503, 500]
    notify(listener.url, "visavis.drift", {})
    ((headers, _),) = listener.taken
    assert "X-Visavis-Signature" not in headers


def test_an_address_that_refuses_or_is_gone_is_named(listener: Listener) -> None:
    listener.statuses = [401]
    with pytest.raises(VisavisError, match=r"refused visavis\.drift with status 401"):
        notify(listener.url, "visavis.drift", {})
    listener.statuses = [302]
    with pytest.raises(VisavisError, match="hook"):
        notify(listener.url, "visavis.drift", {})
    with pytest.raises(VisavisError, match="did not take"):
        notify("http://127.0.0.1:9/hook", "visavis.drift", {})
