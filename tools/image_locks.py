"""Writes the locks of the container images: every package with its version and hashes; `make image-locks` runs it.

The versions are those of requirements.lock, so an image holds what the tests ran with. Two things differ in images:
OpenCV comes without windows, which would need libraries of a desktop, and kfp comes without its own requirements,
of which a step needs none.

    .venv/bin/python tools/image_locks.py            # torch as PyPI has it: it runs on GPUs and CPUs
    .venv/bin/python tools/image_locks.py cpu        # torch's smaller build for CPUs: requirements.cpu.lock
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from install import pinned, pip_settings, uv_arguments

_ROOT = Path(__file__).resolve().parents[1]
_LOCK = _ROOT / "requirements.lock"
_CONTAINERS = _ROOT / "containers"
IMAGES = ("tools", "train", "serve")
_WITH_TORCH, _WITH_STEPS = ("train", "serve"), ("tools", "train")
_BUILD = ("cyclonedx-bom>=7", "hatchling>=1.27", "setuptools", "uv", "wheel")
"""What builds an image and stays out of it: builders of packages, and who writes the bill of materials."""
_HEAD = "# Written by `make image-locks` from pyproject.toml and requirements.lock; do not edit.\n"


def compiled(requirements: Iterable[str], *options: str, overrides: Iterable[str] = ()) -> str:
    """Returns the requirements with all that they need, locked with hashes, for every platform.

    Args:
        requirements: As in a requirements file.
        options: More of uv's arguments.
        overrides: Requirements that replace what packages ask for.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, held = Path(folder, "wanted.in"), Path(folder, "held.in")
        wanted.write_text("\n".join(requirements) + "\n")
        held.write_text("\n".join(overrides) + "\n")
        command = [sys.executable, "-m", "uv", "pip", "compile", str(wanted), "--override", str(held)]
        command += ["--constraint", str(_LOCK), "--universal", "--python-version", "3.11"]
        command += ["--generate-hashes", "--no-annotate", "--no-header", "--quiet"]
        command += ["--no-emit-index-url", "--no-emit-find-links", *options, *_where()]
        return subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def image_lock(image: str, *options: str) -> str:
    """Returns the lock of one image."""
    arguments = ["pyproject.toml", "--extra", f"image-{image}", *options]
    lock = _LOCK.read_text()
    headless = pinned(lock, "opencv-python").replace("opencv-python", "opencv-python-headless")
    needs = compiled([headless], *arguments, overrides=["opencv-python ; sys_platform == 'never'"])
    return needs + compiled([pinned(lock, "kfp")], "--no-deps") if image in _WITH_STEPS else needs


def _where() -> Sequence[str]:
    # A local folder of wheels would put its own hashes, and only those, into the lock.
    settings = {name: value for name, value in pip_settings().items() if name == "index-url"}
    return uv_arguments(settings)


def main() -> None:
    """Writes the locks."""
    os.environ.pop("UV_FIND_LINKS", None)
    backend = sys.argv[1] if len(sys.argv) > 1 else ""
    if backend:
        for image in _WITH_TORCH:
            text = image_lock(image, "--torch-backend", backend)
            _write(_CONTAINERS / image / f"requirements.{backend}.lock", text)
        return
    _write(_CONTAINERS / "build.lock", compiled(_BUILD))
    for image in IMAGES:
        _write(_CONTAINERS / image / "requirements.lock", image_lock(image))


def _write(path: Path, text: str) -> None:
    path.write_text(_HEAD + text)
    print(f"{path.relative_to(_ROOT)}: {text.count('==')} packages")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"error: uv could not lock the images (exit code {error.returncode}); see the lines above\n"
            "  fix: check the network; for the CPU build, that https://download.pytorch.org is in reach"
        )
