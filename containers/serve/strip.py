"""Takes from a root file system what a service does not need: shells, package managers, every program but Python.

What stays runs the model and nothing else; whoever breaks in finds no tool. Run as the last step of a build stage,
for nothing can be run after it.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

_PROGRAMS = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")
_INSTALLERS = ("pip", "pip-*", "setuptools", "setuptools-*", "wheel", "wheel-*", "ensurepip")


def main() -> None:
    """Removes them."""
    python = Path(sys.executable).resolve()
    for folder in {Path("/", name).resolve() for name in _PROGRAMS}:
        for path in folder.glob("*"):
            if path.resolve() != python:
                path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)
    paths = {*sys.path, *sysconfig.get_paths().values(), "/usr/lib/python3/dist-packages"}
    for folder in map(Path, paths):
        for pattern in _INSTALLERS:
            for path in folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("/var/lib/apt", "/var/cache", "/usr/share/doc", "/usr/share/man"):
        shutil.rmtree(name, ignore_errors=True)
    left = sorted(path.name for name in _PROGRAMS for path in Path("/", name).glob("*"))
    print("programs left:", " ".join(left), file=sys.stderr)
    os.sync()


if __name__ == "__main__":
    main()
