"""Installs the locked requirements into a virtual environment with uv; `make setup` runs it.

Standard library only: it runs before anything is installed. uv resolves in seconds what pip takes minutes
for, but it does not read pip's configuration; so the package indexes, folders of wheels and certificates that
the user configured for pip are handed on to it here. Nothing is assumed of any machine.

    .venv/bin/python tools/install.py requirements.lock
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton\b)")
_TORCH = re.compile(r"^(torch|torchvision)==")


def pip_settings() -> dict[str, str]:
    """Returns pip's own settings by bare name (`find-links`), the environment's over the files'."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    settings: dict[str, str] = {}
    for prefix in ("global.", "install.", ":env:."):
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(prefix):
                settings[key.removeprefix(prefix)] = value.strip("'\"")
    return settings


def uv_arguments(settings: Mapping[str, str]) -> list[str]:
    """Translates pip's settings into uv's options.

    Args:
        settings: Values by pip's option name; several values stand in one string, as pip writes them.
    """
    arguments: list[str] = []
    for option in ("find-links", "extra-index-url", "trusted-host"):
        name = {"extra-index-url": "--index", "trusted-host": "--allow-insecure-host"}.get(
            option, f"--{option}"
        )
        for value in shlex.split(settings.get(option, "").replace("\\n", " ")):
            arguments += [name, value]
    if "index-url" in settings:
        arguments += ["--default-index", settings["index-url"]]
    if "extra-index-url" in settings:
        # pip takes the best version of all indexes; uv by default the first index that knows the name.
        arguments += ["--index-strategy", "unsafe-best-match"]
    return arguments


def pinned(lock: str, name: str) -> str:
    """Returns the requirement of one package without its marker, as `name==version`."""
    for line in lock.splitlines():
        if line.startswith(f"{name}=="):
            return line.partition(";")[0].strip()
    raise SystemExit(f"error: {name} is not in the lock\n  fix: run `make lock`")


def without_cuda(lock: str) -> str:
    """Returns the lock less the packages that only a CUDA build of torch needs."""
    return "".join(line for line in lock.splitlines(keepends=True) if not _CUDA_ONLY.match(line))


def has_gpu() -> bool:
    """Tells whether an NVIDIA driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def cpu_build_in_reach(uv: list[str], lock: str, environment: Mapping[str, str]) -> bool:
    """Tells whether uv can get the CPU build of the locked torch; a dead address is not waited for."""
    wanted = [line.partition(";")[0].strip() for line in lock.splitlines() if _TORCH.match(line)]
    impatient = {**environment, "UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "0"}
    command = [*uv, "--dry-run", "--reinstall", "--no-deps", "--torch-backend", "cpu", *wanted]
    return subprocess.run(command, env=impatient, capture_output=True, check=False).returncode == 0


def check_system_libraries() -> None:
    """Imports the packages that need libraries of the operating system.

    Raises:
        SystemExit: If such a library is missing.
    """
    code = "import cv2, skia"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(
            f"error: {result.stderr.strip().splitlines()[-1]}\n"
            "  fix: install that library of the operating system"
            " (Debian: apt-get install libegl1 libgl1 libglib2.0-0)"
        )


def main() -> None:
    """Installs uv, then the lock, then visavis itself in editable form."""
    if sys.prefix == sys.base_prefix:
        raise SystemExit(
            f"error: {sys.executable} is not the Python of a virtual environment\n  fix: run `make setup`"
        )
    lock_path = Path(sys.argv[1])
    lock = lock_path.read_text()
    settings = pip_settings()
    environment = dict(os.environ)
    if "cert" in settings:
        environment.setdefault("SSL_CERT_FILE", settings["cert"])
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", pinned(lock, "uv")], check=True)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, *uv_arguments(settings)]
    if platform.system() == "Linux" and not has_gpu() and cpu_build_in_reach(uv, lock, environment):
        print("No GPU here: installing the CPU build of torch.", flush=True)
        lock_path = Path(sys.prefix) / "requirements.cpu.lock"
        lock_path.write_text(without_cuda(lock))
        uv += ["--torch-backend", "cpu"]
    # Every step of a pipeline is a process: compiled once here, torch and transformers load in half the time.
    compiled = [*uv, "--compile-bytecode", "--requirement", str(lock_path)]
    subprocess.run(compiled, env=environment, check=True)
    subprocess.run([*uv, "--quiet", "--no-deps", "--editable", "."], env=environment, check=True)
    check_system_libraries()


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"error: the installation stopped (exit code {error.returncode}); see the lines above\n"
            "  fix: check the network and `pip config list`, then run `make setup` again"
        )
