"""What keeps the house in order: the lock, the licences, the installer."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = {"components", "pipelines"}
"""Folders of the checkout that are imported by name."""


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def asked_for(repository: Path) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    return [item for item in map(Requirement, texts) if item.name != "visavis"]


@pytest.fixture
def installer(repository: Path) -> ModuleType:
    return load(repository / "tools" / "install.py")


@pytest.fixture
def locked(repository: Path) -> dict[str, Requirement]:
    lines = (repository / "requirements.lock").read_text().splitlines()
    items = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(item.name): item for item in items}


def test_every_locked_requirement_is_pinned_and_comes_from_an_index(locked: dict[str, Requirement]) -> None:
    for item in locked.values():
        assert item.url is None, item
        assert re.fullmatch(r"==[\w.!+]+", str(item.specifier)), item


def test_the_lock_names_no_place(repository: Path) -> None:
    text = (repository / "requirements.lock").read_text()
    assert not re.search(r"--(find-links|index|extra-index)|file:|https?:|^-e |/", text, re.MULTILINE)


def test_every_imported_library_is_asked_for(repository: Path, asked_for: list[Requirement]) -> None:
    names = {canonicalize_name(item.name) for item in asked_for} | {"visavis"}
    known = importlib.metadata.packages_distributions()
    for path in sorted((repository / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            for module in {name.split(".")[0] for name in modules} - sys.stdlib_module_names - {"visavis"}:
                if module not in OURS:
                    providers = {canonicalize_name(name) for name in known.get(module, [module])}
                    assert providers & names, f"{path.name} imports {module}: add it to pyproject.toml"


def test_the_lock_meets_what_the_package_asks_for(
    asked_for: list[Requirement], locked: dict[str, Requirement]
) -> None:
    for item in asked_for:
        version = str(locked[canonicalize_name(item.name)].specifier).removeprefix("==")
        assert item.specifier.contains(version), item


def test_every_locked_dependency_is_listed_with_its_licence(
    repository: Path, locked: dict[str, Requirement]
) -> None:
    page = (repository / "docs" / "licences.md").read_text()
    listed = dict(re.findall(r"^\| ([\w.-]+) \| ([\w.!+]+) \| .+ \|$", page, re.MULTILINE))
    for name, item in locked.items():
        if item.marker is None or item.marker.evaluate(
            {"sys_platform": "linux", "platform_machine": "x86_64"}
        ):
            assert listed.get(item.name) == str(item.specifier).removeprefix("=="), f"{name}: run `make lock`"
    assert "non-commercial" in page, "insightface's weights must not be taken for free ones"


def test_pip_settings_are_handed_on_to_uv(installer: ModuleType) -> None:
    settings = {
        "find-links": "/wheels /more",
        "extra-index-url": "https://a/simple\\nhttps://b/simple",
        "index-url": "https://mirror/simple",
        "trusted-host": "mirror",
        "timeout": "60",
    }
    arguments = installer.uv_arguments(settings)
    pairs = list(zip(arguments[::2], arguments[1::2], strict=True))
    assert pairs == [
        ("--find-links", "/wheels"),
        ("--find-links", "/more"),
        ("--index", "https://a/simple"),
        ("--index", "https://b/simple"),
        ("--allow-insecure-host", "mirror"),
        ("--default-index", "https://mirror/simple"),
        ("--index-strategy", "unsafe-best-match"),
    ]
    assert installer.uv_arguments({}) == []


def test_the_cpu_install_leaves_out_what_only_cuda_needs(installer: ModuleType, repository: Path) -> None:
    lock = (repository / "requirements.lock").read_text()
    left = installer.without_cuda(lock)
    assert "nvidia-" in lock
    assert not re.search(r"^(nvidia|cuda|triton)", left, re.MULTILINE)
    assert installer.pinned(left, "torch") == installer.pinned(lock, "torch")


def test_the_installer_refuses_a_python_outside_of_a_virtual_environment(
    installer: ModuleType, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["install.py", str(repository / "requirements.lock")])
    monkeypatch.setattr("sys.base_prefix", "/somewhere")
    monkeypatch.setattr("sys.prefix", "/somewhere")
    with pytest.raises(SystemExit, match="make setup"):
        installer.main()
