"""Writes components/*/README.md out of the docstring and signature of each component.

.venv/bin/python -m tools.component_readmes
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

_COMPONENTS = Path(__file__).resolve().parents[1] / "components"
_WIDTH = 120
_TYPES = {"str": "string", "list[str]": "list of strings", "dsl.PipelineTaskFinalStatus": "final status"}
_MANIFESTS = """\
Artifacts between components are manifests: where the result lies, the sha256 of its files, and the counts of its
ledger (`in = kept + sum(dropped)`). The result itself lies in the store, under a key made of code, settings and inputs,
so an unchanged step is found there instead of run again."""


def readme(folder: Path) -> str:
    """Returns the README of a component.

    Args:
        folder: Folder of the component.
    """
    tree = ast.parse((folder / "component.py").read_text(encoding="utf-8"))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    about, told = _sections(ast.get_docstring(function) or "")
    types = {row.arg: ast.unparse(row.annotation) for row in function.args.args if row.annotation}
    outputs = {name: kind for name, kind in types.items() if kind.startswith("dsl.Output")}
    inputs = {name: kind for name, kind in types.items() if name not in outputs}
    if function.returns is not None and (kind := ast.unparse(function.returns)) != "None":
        outputs["Output"] = kind
    module = next(
        node.module for node in ast.walk(function) if isinstance(node, ast.ImportFrom) and node.module
    )
    source = f"[`{module}`](../../src/{module.replace('.', '/')}.py)"
    parts = [
        f"# {folder.name}",
        *(textwrap.fill(paragraph, _WIDTH, break_long_words=False) for paragraph in about),
        _table("input", inputs, told),
        _table("output", outputs, told),
        _MANIFESTS if any(kind != "dsl.Output[dsl.HTML]" for kind in outputs.values()) else "",
        f"The work is done by {source}.",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _sections(docstring: str) -> tuple[list[str], dict[str, str]]:
    """Returns the paragraphs of a Google docstring, and what it says of each argument and of the result."""
    head, _, rest = docstring.partition("\nArgs:\n")
    arguments, _, returned = rest.partition("\nReturns:\n")
    told: dict[str, str] = {}
    name = ""
    for line in arguments.splitlines():
        if found := re.match(r" {4}(\w+): (.*)", line):
            name, told[found[1]] = found[1], found[2]
        elif line.strip():
            told[name] += f" {line.strip()}"
    if returned:
        told["Output"] = " ".join(returned.split())
    return [" ".join(paragraph.split()) for paragraph in head.strip().split("\n\n")], told


def _table(kind: str, rows: Mapping[str, str], told: Mapping[str, str]) -> str:
    def lines() -> Iterator[str]:
        yield f"| {kind} | type | what it is |"
        yield "| --- | --- | --- |"
        for name, annotation in rows.items():
            yield f"| `{name}` | {_words(annotation)} | {told[name]} |"

    return "\n".join(lines()) if rows else ""


def _words(annotation: str) -> str:
    """Returns a type as Kubeflow's pages call it."""
    if annotation in _TYPES:
        return _TYPES[annotation]
    inner = re.sub(r"dsl\.(Input|Output)\[(.*)\]$", r"\2", annotation)
    several = inner.removeprefix("list[").removesuffix("]") if inner.startswith("list[") else ""
    return f"list of {several}".replace("dsl.", "") if several else inner.replace("dsl.", "")


def main() -> None:
    """Writes them all."""
    for file in sorted(_COMPONENTS.glob("*/component.py")):
        (file.parent / "README.md").write_text(readme(file.parent), encoding="utf-8")


if __name__ == "__main__":
    main()
