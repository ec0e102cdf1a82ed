"""Builds the container images and writes the bill of materials of each; `make images` runs it.

Prints what the components read: `VISAVIS_TOOLS_IMAGE=...` and so on, by digest once the images are pushed. Standard
library only.

    python tools/images.py --base docker.io/library/python:3.11-slim-bookworm@sha256:...
    python tools/images.py --base ... --registry registry.example.org/team --push
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_SBOM = _ROOT / "dist" / "sbom"
_IN_IMAGE = "/opt/visavis/sbom.cdx.json"
IMAGES = ("tools", "train", "serve")


def parser() -> argparse.ArgumentParser:
    """Returns what the command line takes."""
    known = argparse.ArgumentParser(description="Builds the container images.")
    add = known.add_argument
    add("--base", default="", help="Base image with Python and pip, by digest.")
    add("--engine", default="docker", help="Program that builds: docker (with BuildKit) or podman.")
    add("--registry", default="", help="Where the images belong, such as registry.example.org/team.")
    add("--tag", default="", help="Tag of the images; by default the version.")
    add("--torch", default="", help="`cpu` for the smaller build of torch; its lock must be there.")
    add("--push", action="store_true", help="Push to the registry, and print digests.")
    add("--only", choices=IMAGES, action="append", help="Build this one alone; can be given several times.")
    add("more", nargs="*", help="More arguments of the engine's `build`, after `--`.")
    return known


def check(given: argparse.Namespace) -> None:
    """Stops with what to do where a build could not work.

    Raises:
        SystemExit: If an argument is missing or wrong.
    """
    if not given.base:
        _stop(
            "no base image is named",
            "make images BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm@sha256:..."
            " (its digest: docker buildx imagetools inspect python:3.11-slim-bookworm);"
            " without a registry, BASE_IMAGE=$(sudo tools/docker_here.sh)",
        )
    if given.push and not given.registry:
        _stop("--push without a registry", "make images PUSH=1 REGISTRY=registry.example.org/team")
    if given.torch and not (_ROOT / f"containers/train/requirements.{given.torch}.lock").is_file():
        _stop(f"there is no lock for TORCH={given.torch}", f"make image-locks TORCH={given.torch}")
    try:
        _said(given.engine, "info")
    except (OSError, subprocess.CalledProcessError):
        _stop(
            f"{given.engine} does not answer",
            "start it, or name another one: ENGINE=podman (Debian: sudo tools/docker_here.sh)",
        )
    if "@sha256:" not in given.base:
        print(
            f"note: {given.base} is not named by digest: another day it may be another image", file=sys.stderr
        )


def build(image: str, name: str, given: argparse.Namespace) -> str:
    """Builds an image and returns how to name it: by digest if it was pushed, else by its tag.

    Args:
        image: `tools`, `train` or `serve`.
        name: Its name with a tag.
        given: The command line.
    """
    values = {
        "BASE_IMAGE": given.base,
        "TORCH": "" if image == "tools" else given.torch,
        "VERSION": version(),
        "REVISION": _commit(),
        "CREATED": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    command = [given.engine, "build", "--file", f"containers/{image}/Containerfile", "--tag", name]
    for key, value in values.items():
        command += ["--build-arg", f"{key}={value}"] if value else []
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    subprocess.run([*command, *given.more, "."], cwd=_ROOT, env=environment, check=True, stdout=sys.stderr)
    _SBOM.mkdir(parents=True, exist_ok=True)
    container = _said(given.engine, "create", name)
    try:
        _said(given.engine, "cp", f"{container}:{_IN_IMAGE}", str(_SBOM / f"visavis-{image}.cdx.json"))
    finally:
        _said(given.engine, "rm", container)
    if not given.push:
        return name
    subprocess.run([given.engine, "push", name], check=True, stdout=sys.stderr)
    digests = _said(given.engine, "image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', name)
    return next(line for line in digests.splitlines() if line.startswith(f"{name.rpartition(':')[0]}@"))


def version() -> str:
    """Returns the version of the package, read from its source."""
    found = re.search(
        r'^__version__ = "(.+)"$', (_ROOT / "src/visavis/__init__.py").read_text(), re.MULTILINE
    )
    assert found is not None
    return found[1]


def _commit() -> str:
    try:
        return _said("git", "-C", str(_ROOT), "describe", "--always", "--abbrev=40", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _said(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _stop(message: str, fix: str) -> None:
    raise SystemExit(f"error: {message}\n  fix: {fix}")


def main() -> None:
    """Builds them and prints their names."""
    given = parser().parse_args()
    check(given)
    place = f"{given.registry.rstrip('/')}/" if given.registry else ""
    for image in given.only or IMAGES:
        name = build(image, f"{place}visavis-{image}:{given.tag or version()}", given)
        print(f"VISAVIS_{image.upper()}_IMAGE={name}", flush=True)
    print(f"bills of materials: {_SBOM.relative_to(_ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        what = error.stderr.strip().splitlines()[-1] if error.stderr else f"exit code {error.returncode}"
        sys.exit(
            f"error: {error.cmd[0]} {error.cmd[1]} failed: {what}\n  fix: see the lines above, then try again"
        )
