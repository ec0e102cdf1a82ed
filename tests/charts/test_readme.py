"""The chart's README is what its values say, and the pages that people follow name what the chart makes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from chart_rendering import CHART, MLFLOW, environment, merged, one, render, texts


@pytest.fixture
def tool(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("chart_readme", repository / "tools" / "chart_readme.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_up_to_date(tool: ModuleType) -> None:
    assert (CHART / "README.md").read_text() == tool.page(), "run .venv/bin/python tools/chart_readme.py"


def test_a_value_without_a_comment_is_named(tool: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"a\.c in values\.yaml"):
        list(tool.values("a:\n  # -- Fine.\n  b: 1\n  c: 2\n"))


def test_values_and_defaults_are_read_as_they_are_written(tool: ModuleType) -> None:
    text = "# -- One.\na: 1\nb:\n  # -- Two.\n  c: [x, 2]\n  # -- Three.\n  d:\n    e: {}\n"
    assert list(tool.values(text)) == [
        ("a", "1", "One."),
        ("b.c", '["x", 2]', "Two."),
        ("b.d", '{"e": {}}', "Three."),
    ]


def test_the_files_that_the_pages_name_are_there(repository: Path) -> None:
    install = (repository / "docs" / "install.md").read_text()
    for name in re.findall(r"charts/visavis/[\w./-]+\.yaml", install + (CHART / "README.md").read_text()):
        assert (repository / name).is_file(), name


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
@pytest.mark.parametrize("mode", ["none", "deployment"])
def test_the_site_of_the_page_installs_in_every_environment(name: str, mode: str, repository: Path) -> None:
    (block,) = re.findall(
        r"```yaml\n# site\.yaml\n(.+?)```", (repository / "docs" / "install.md").read_text(), re.DOTALL
    )
    site = merged(environment(name), yaml.safe_load(block), {"serving": {"mode": mode}})
    objects = render(site)
    assert one(objects, "TrainingRuntime", "faces-train") and one(objects, "ServiceAccount", "faces-pipeline")
    tests = {item["metadata"]["name"] for item in objects if item["kind"] == "Pod"}
    served = {"faces-test-serving"} if mode == "deployment" else set()
    assert tests == {"faces-test-mlflow", "faces-test-object-store", "faces-test-cluster", *served}


@pytest.mark.parametrize("mode", ["none", "deployment", "inferenceservice"])
def test_the_notes_name_three_commands_and_objects_that_are_there(mode: str) -> None:
    values = {"mlflow": MLFLOW, "serving": {"mode": mode, "keys": {"openToAll": mode == "deployment"}}}
    notes = texts(values)["NOTES.txt"]
    assert len(re.findall(r"^  \d\. \S", notes, re.MULTILINE)) == 3
    assert "helm test faces --namespace team" in notes
    objects = render(values)
    for kind, name in re.findall(r"(configmap|deployment|service)[/ ](faces[\w-]*)", notes):
        full = {"configmap": "ConfigMap", "deployment": "Deployment", "service": "Service"}[kind]
        assert one(objects, full, name)
    assert one(objects, "ServiceAccount", "faces-pipeline") and "service account faces-pipeline" in notes
