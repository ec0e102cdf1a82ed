"""MLflow as a team runs it: a server with PostgreSQL, artifacts straight into S3, sign-in, webhooks."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from serving import free_port

ADMIN, PASSWORD = "admin", "a-long-enough-password"
_START_SECONDS = 180


@dataclass
class TeamServer:
    """The server's process, which can be stopped and started again at the same address.

    Attributes:
        folder: For its log and its list of users.
        database: Where runs and versions are kept.
        artifacts: Where files are kept; clients read and write there themselves.
    """

    folder: Path
    database: str
    artifacts: str
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        users = self.folder / "auth.ini"
        if not users.is_file():
            users.write_text(
                "[mlflow]\n"
                "default_permission = READ\n"
                f"database_uri = sqlite:///{self.folder / 'users.db'}\n"
                f"admin_username = {ADMIN}\n"
                f"admin_password = {PASSWORD}\n"
                "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            )
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--app-name", "basic-auth", "--backend-store-uri", self.database]
        command += ["--no-serve-artifacts", "--default-artifact-root", self.artifacts]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
            "MLFLOW_AUTH_CONFIG_PATH": str(users),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # Of a webhook that listens on this machine.
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_CACHE_TTL": "1",
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < until, self.log()[-3000:]
            time.sleep(0.3)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.uri}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def team_server(
    folder: Path, postgres: str, artifacts: str, setting: pytest.MonkeyPatch
) -> Iterator[TeamServer]:
    """Runs a server with a database of its own, and gives this process its sign-in.

    Args:
        folder: For its log and its list of users.
        postgres: Address of any database of the PostgreSQL server.
        artifacts: Where files are kept.
        setting: Takes the sign-in.
    """
    from sqlalchemy import create_engine, text

    engine = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE mlflow"))
    engine.dispose()
    setting.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    setting.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    server = TeamServer(folder, postgres.rpartition("/")[0] + "/mlflow", artifacts)
    server.start()
    yield server
    server.stop()
