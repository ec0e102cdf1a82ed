"""A real PostgreSQL server on loopback, thrown away after the tests."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_DEBIAN = Path("/usr/lib/postgresql")
_USER = "postgres"
_START_S = 60
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": 40,
}


def find_programs() -> Path | None:
    """Returns the folder of `initdb` and `pg_ctl`: the newest that Debian installed, else the one of the PATH."""
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "initdb").is_file()]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of an empty database, `postgresql+psycopg2://...`; the server lives as long as the session."""
    programs = find_programs()
    if programs is None:
        pytest.fail("PostgreSQL is not there: no initdb. Fix: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="visavis-postgres-"))
    if os.geteuid() == 0:  # the server refuses to run as root
        account = pwd.getpwnam(_USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
    data, log = folder / "data", folder / "log"
    try:
        _call(programs / "initdb", "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        port = _free_port()
        options = " ".join(f"-c {name}={shlex.quote(str(value))}" for name, value in _SETTINGS.items())
        start = ("start", "-w", "-t", _START_S, "-l", log, "-o", f"{options} -p {port}")
        _call(programs / "pg_ctl", "-D", data, *start)
        try:
            yield f"postgresql+psycopg2://{_USER}@127.0.0.1:{port}/postgres"
        finally:
            _call(programs / "pg_ctl", "-D", data, "stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _call(*command: object) -> None:
    line = shlex.join(str(part) for part in command)
    arguments = ["su", _USER, "-s", "/bin/sh", "-c", line] if os.geteuid() == 0 else ["sh", "-c", line]
    # Into files, not pipes: the server would keep a pipe open that this process waits for.
    with tempfile.TemporaryFile() as output:
        code = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", check=False
        ).returncode
        output.seek(0)
        assert code == 0, f"{line}\n{output.read().decode(errors='replace')}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
