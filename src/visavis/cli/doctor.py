"""`visavis doctor`: looks at this machine before a run does, and says what to do about what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from visavis.errors import VisavisError
from visavis.launch.finding import Finding

_GIB = 1024**3
_DISK_GIB = 3.0
_MEMORY_GIB = 6.0
# Import name -> what it is for; each is a library whose absence or broken system library stops a step.
_LIBRARIES = {
    "av": "decode clips",
    "cv2": "face detection",
    "insightface": "face detection and recognition",
    "segment_anything": "face masks",
    "skia": "the storybook world",
    "webdataset": "shards",
    "torch": "models",
    "torchvision": "face masks",
    "transformers": "language model, CLIP",
    "diffusers": "text-to-image model",
    "mlflow": "tracking",
    "kfp": "pipelines",
}


def examine(pack: str, port: int, folder: Path) -> Iterator[Finding]:
    """Looks at everything a run on this machine needs, one finding at a time.

    Args:
        pack: Name or folder of the pack to verify.
        port: Port that `visavis ui` is to use.
        folder: Where runs are kept.
    """
    yield _python()
    yield _memory()
    yield _disk(folder)
    yield _port(port)
    for name, use in _LIBRARIES.items():
        yield _library(name, use)
    yield _device()
    yield _guarded(f"pack {pack}", lambda: _pack(pack))


def port_is_free(port: int) -> bool:
    """Tells whether a server could listen on this port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _python() -> Finding:
    version = platform.python_version()
    if (3, 11) <= sys.version_info < (3, 14):
        return Finding("python", "ok", version)
    return Finding("python", "missing", version, "use Python 3.11 to 3.13: make setup PYTHON=python3.11")


def _memory() -> Finding:
    try:
        gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    except (ValueError, OSError):
        return Finding("memory", "warning", "unknown", f"a run needs {_MEMORY_GIB:.0f} GiB")
    if gib >= _MEMORY_GIB:
        return Finding("memory", "ok", f"{gib:.0f} GiB, {os.cpu_count()} cores")
    return Finding("memory", "warning", f"{gib:.1f} GiB", f"a run of `storybook` needs {_MEMORY_GIB:.0f} GiB")


def _disk(folder: Path) -> Finding:
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    gib = shutil.disk_usage(existing).free / _GIB
    if not os.access(existing, os.W_OK):
        return Finding(
            "disk", "missing", f"{existing} is not writable", "make it writable, or run somewhere else"
        )
    if gib >= _DISK_GIB:
        return Finding("disk", "ok", f"{gib:.0f} GiB free in {existing}")
    return Finding("disk", "missing", f"{gib:.1f} GiB free in {existing}", f"free {_DISK_GIB:.0f} GiB")


def _port(port: int) -> Finding:
    if port_is_free(port):
        return Finding("port", "ok", f"{port} is free")
    return Finding("port", "warning", f"{port} is in use", f"use another one: visavis ui --port {port + 1}")


def _library(name: str, use: str) -> Finding:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return Finding(name, "missing", f"{error} (for: {use})", _import_fix(str(error)))
    return Finding(name, "ok", str(getattr(module, "__version__", "present")))


def _import_fix(message: str) -> str:
    if "cannot open shared object" in message:
        return "install the system library (Debian: apt-get install libegl1 libgl1 libglib2.0-0)"
    return "make setup"


def _device() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("device", "missing", "no torch", "make setup")
    if torch.cuda.is_available():
        return Finding("device", "ok", torch.cuda.get_device_name())
    return Finding("device", "ok", f"CPU, {torch.get_num_threads()} threads")


def _pack(name: str) -> Finding:
    from visavis.packs import load_pack

    pack = load_pack(name)
    pack.verify()
    return Finding(f"pack {name}", "ok", f"{len(pack.manifest.files)} files, every hash as declared")


def _guarded(subject: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except VisavisError as error:
        return Finding(subject, "missing", error.message, error.fix)
