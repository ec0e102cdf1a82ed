"""`visavis ui`: MLflow's pages on the runs of this machine, or on the server that they were sent to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from visavis.cli.doctor import port_is_free
from visavis.errors import VisavisError

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"


def serve(runs: Path, port: int, console: Console) -> None:
    """Serves MLflow until Ctrl-C.

    Args:
        runs: Folder that holds MLflow's database.
        port: Port of the loopback address.
        console: Where to print the address.

    Raises:
        VisavisError: If there are no runs yet, the port is in use, or the server does not start.
    """
    remote = os.environ.get("MLFLOW_TRACKING_URI", "")
    if remote.startswith(("http://", "https://")):
        console.print(f"The runs are on the server that MLFLOW_TRACKING_URI names: [bold]{remote}[/]")
        return
    database = (runs / DATABASE).resolve()
    if not database.is_file():
        raise VisavisError(
            f"{database} does not exist: no run was tracked yet", fix="visavis run --recipe smoke"
        )
    if not port_is_free(port):
        raise VisavisError(f"port {port} is in use", fix=f"choose another one: visavis ui --port {port + 1}")
    console.print(f"MLflow on [bold]http://127.0.0.1:{port}[/] in some 20 seconds; Ctrl-C ends it.")
    store = remote or f"sqlite:///{database}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += [
        "--backend-store-uri",
        store,
        "--artifacts-destination",
        (runs / ARTIFACTS).resolve().as_uri(),
    ]
    # Without the job runner, the server takes a third of the time and memory to start.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    try:
        code = subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return
    if code:
        raise VisavisError(f"mlflow server ended with exit code {code}", fix="see its last lines above")
