"""The Containerfiles and their locks, without building them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "containers"
IMAGES = ("tools", "train", "serve")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")

every_image = pytest.mark.parametrize("image", IMAGES)


def pins(lock: Path) -> dict[str, str]:
    """Version of each package of a lock, by name, but for those that are never installed."""
    lines = (line for line in lock.read_text().splitlines() if re.match(r"[a-z0-9]", line))
    lines = (line for line in lines if "== 'never'" not in line)
    return dict(line.split(";")[0].strip(" \\").split("==") for line in lines)


def wanted(extra: str) -> set[str]:
    """Names of the packages that an extra of ours asks for, with those of the extras in it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names: set[str] = set()
    for requirement in map(Requirement, extras[extra]):
        if requirement.name == "visavis":
            names |= set.union(*map(wanted, requirement.extras))
        else:
            names.add(canonicalize_name(requirement.name))
    return names


@every_image
def test_hadolint_finds_nothing(image: str) -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert program is not None, "hadolint is not there; `make setup` installs it"
    done = subprocess.run(
        [program, "--failure-threshold", "ignore", str(CONTAINERS / image / "Containerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@every_image
def test_the_lock_holds_every_package_with_hashes(image: str) -> None:
    lock = CONTAINERS / image / "requirements.lock"
    blocks = re.split(r"\n(?=[a-z0-9])", lock.read_text())[1:]
    assert len(blocks) > 50
    assert [block.split()[0] for block in blocks if not HASH.search(block)] == []
    missing = wanted(f"image-{image}") - pins(lock).keys()
    assert missing <= {"opencv-python"}, "`make image-locks` after a change of pyproject.toml"


@every_image
def test_an_image_holds_the_versions_that_the_tests_ran_with(image: str) -> None:
    tested, packed = pins(ROOT / "requirements.lock"), pins(CONTAINERS / image / "requirements.lock")
    other = {name: version for name, version in packed.items() if tested.get(name) != version}
    assert set(other) <= {"opencv-python-headless"}
    assert all(version == tested["opencv-python"] for version in other.values())


def test_what_is_left_out() -> None:
    packed = {image: pins(CONTAINERS / image / "requirements.lock").keys() for image in IMAGES}
    assert not {"torch", "transformers", "deepspeed", "segment-anything"} & packed["tools"]
    assert not {"deepspeed", "kfp", "insightface"} & packed["serve"]
    for names in packed.values():
        assert not {"pip", "uv", "pytest", "ruff", "opencv-python"} & names


@every_image
def test_it_runs_as_nobody_of_note_and_its_code_comes_last(image: str) -> None:
    text = (CONTAINERS / image / "Containerfile").read_text()
    final = text[text.rindex("\nFROM ") :]
    assert "USER 10001:0" in final and "\nRUN " not in final
    copies = [line for line in final.splitlines() if line.startswith("COPY")]
    assert copies[-1] == "COPY --from=code /opt/visavis/code /opt/visavis/code"
    for line in text.splitlines():
        assert not re.match(r"(ENTRYPOINT|CMD|HEALTHCHECK) (?!.*\[)", line), "exec form needs no shell"


def test_a_build_sees_only_what_is_allowed() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert allowed == {"containers", "src", "pyproject.toml", "LICENSE", "README.md"}


def images(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "images.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_build_without_a_base_says_what_to_pass() -> None:
    done = images()
    assert done.returncode == 1
    assert "no base image is named" in done.stderr and "BASE_IMAGE=docker.io/library/python" in done.stderr


def test_an_engine_that_is_not_there_is_named_with_the_fix() -> None:
    done = images("--base", "python:3.11", "--engine", "no-such-engine")
    assert done.returncode == 1
    assert "no-such-engine does not answer" in done.stderr and "docker_here.sh" in done.stderr


def test_the_smaller_torch_needs_its_lock() -> None:
    done = images("--base", "python:3.11", "--torch", "rocm")
    assert done.returncode == 1 and "make image-locks TORCH=rocm" in done.stderr


def test_pushing_needs_a_registry() -> None:
    done = images("--base", "python:3.11", "--push")
    assert done.returncode == 1 and "REGISTRY=" in done.stderr
