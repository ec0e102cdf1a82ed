"""Components are thin, start without the project's libraries, and say what they are."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "components").glob("*/component.py"))
STEPS = {
    "list_clips", "curate_part", "curate_clips", "describe_clips", "segment_faces", "make_full_body",
    "build_conversations", "encode_images",
    "tune_detokenizer", "tune_mllm", "tune_rounds", "adapt_detokenizer", "evaluate_model",
    "evaluate_champion", "gate_model", "register_model", "promote_model", "close_run", "score_arm", "monitor_champion",
    "evaluate_version", "promote_version", "preflight",
}  # fmt: skip

LAUNCHED = {
    **dict.fromkeys(
        ("tune_detokenizer", "tune_mllm", "tune_rounds", "adapt_detokenizer"), ("training", "train_step")
    ),
    "close_run": ("closing", "close_run"),
    "preflight": ("preflight", "preflight"),
}
"""Components that deal with the cluster and not only with their step: what they call of `visavis.launch`."""

every_component = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def function_of(folder: Path) -> ast.FunctionDef:
    tree = ast.parse((folder / "component.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == [folder.name]
    return functions[0]


def test_every_step_has_a_component() -> None:
    assert {folder.name for folder in FOLDERS} == STEPS


@every_component
def test_the_body_is_short_and_calls_the_step_of_its_name(folder: Path) -> None:
    function = function_of(folder)
    body = function.body[1:]
    assert body[-1].end_lineno - body[0].lineno + 1 <= 15
    imports = [node for node in ast.walk(function) if isinstance(node, ast.ImportFrom | ast.Import)]
    wanted = (f"visavis.steps.{folder.name}", folder.name)
    if folder.name in LAUNCHED:
        module, name = LAUNCHED[folder.name]
        wanted = (f"visavis.launch.{module}", name)
    assert [(node.module, node.names[0].name) for node in imports] == [wanted]
    if wanted[1] == "train_step":
        assert f'train_step("{folder.name}"' in ast.unparse(function).replace("'", '"')


@every_component
def test_the_module_imports_only_the_standard_library_and_kfp(folder: Path) -> None:
    tree = ast.parse((folder / "component.py").read_text())
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    assert modules - set(sys.stdlib_module_names) <= {"kfp", "components.images", "components.handing_on"}


@every_component
def test_nothing_is_installed_when_it_starts(folder: Path) -> None:
    decorator = ast.unparse(function_of(folder).decorator_list[0])
    assert "packages_to_install=[]" in decorator
    assert "install_kfp_package=False" in decorator


@every_component
def test_every_argument_is_documented_in_code_and_readme(folder: Path) -> None:
    function = function_of(folder)
    docstring, readme = ast.get_docstring(function) or "", (folder / "README.md").read_text()
    for argument in function.args.args:
        assert f"    {argument.arg}: " in inspect.cleandoc(docstring), argument.arg
        assert f"| `{argument.arg}` |" in readme, argument.arg


@every_component
def test_the_readme_is_made_of_the_docstring(folder: Path) -> None:
    from tools.component_readmes import readme

    assert (folder / "README.md").read_text() == readme(folder), "run `python -m tools.component_readmes`"


@every_component
def test_metadata_has_the_fields_that_catalogues_ask_for(folder: Path) -> None:
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    assert set(metadata) == {"name", "stability", "dependencies", "tags", "lastVerified", "links"}
    assert metadata["name"] == folder.name
    assert metadata["stability"] in {"alpha", "beta", "stable"}
    assert metadata["dependencies"]["kubeflow"][0]["name"] == "Pipelines"
    for path in metadata["links"].values():
        assert (ROOT / path).is_file(), path
