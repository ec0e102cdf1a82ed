"""Every step finds what it needs in the image of its component."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from locked_down import LOCKED_DOWN

if TYPE_CHECKING:
    import docker

ROOT = Path(__file__).resolve().parents[3]


def modules_of(image: str) -> set[str]:
    """Modules that the components of an image import when they start."""
    found: set[str] = set()
    for path in (ROOT / "components").glob("*/component.py"):
        tree = ast.parse(path.read_text())
        images = {name.id for name in ast.walk(tree) if isinstance(name, ast.Name)}
        if f"{image.upper()}_IMAGE" in images:
            nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            found |= {str(node.module) for node in nodes if str(node.module).startswith("visavis.")}
    return found


@pytest.mark.parametrize("image", ["tools", "train"])
def test_what_its_steps_import_is_there(
    engine: docker.DockerClient, images: Mapping[str, str], image: str
) -> None:
    modules = modules_of(image)
    assert len(modules) > 5
    lines = ["import importlib", *(f"importlib.import_module({name!r})" for name in sorted(modules))]
    # Of a cluster, which is asked only where there is one.
    lines += ["import kubeflow.trainer, kubernetes", "print('all there')"]
    said = engine.containers.run(
        images[image], ["python3", "-c", "\n".join(lines)], remove=True, **LOCKED_DOWN
    )
    assert said.decode().strip().endswith("all there")
