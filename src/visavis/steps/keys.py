"""The content key of a step: what it is made of, so that equal work is done once.

A key covers the code that the step can reach, the part of the recipe that it reads, the pretrained parts it
loads and the content of its inputs. Nothing else: a change of the chat page must not train a model anew.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError
from visavis.files import sha256_bytes, sha256_file
from visavis.packs import load_pack

KEY_FORMAT = 1
"""Raised by hand when the layout of the store or the meaning of a key changes."""

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = "visavis"
# These cannot change what a step computes: the recipe's values are in the key, and the rest only reports.
_UNHASHED = frozenset(
    f"{_PACKAGE}{name}"
    for name in (
        "",
        ".recipes",
        ".errors",
        ".cli",
        ".mirror",
        ".s3",
        ".steps",
        ".steps.contracts",
        ".steps.framework",
        ".steps.grids",
        ".steps.keys",
        ".steps.store",
        ".steps.timings",
    )
)
_UNHASHED_BELOW = tuple(f"{_PACKAGE}.{name}" for name in ("cluster", "launch", "serving", "tracking"))


def content_key(
    name: str, code: str, section: Mapping[str, Any], inputs: Mapping[str, str], extra: str = ""
) -> str:
    """Returns the 16 hexadecimal digits under which the result of a step is stored.

    Args:
        name: Name of the step.
        code: `code_version` of its body.
        section: Resolved settings that the step reads, from `resolve_section`.
        inputs: Content digest of each input manifest.
        extra: Digest of what the step reads from outside the run (a folder of clips), empty if there is none.
    """
    parts = {
        "format": KEY_FORMAT,
        "step": name,
        "code": code,
        "section": section,
        "inputs": inputs,
        "extra": extra,
    }
    return sha256_bytes(json.dumps(parts, sort_keys=True).encode())[:16]


def resolve_section(recipe: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Returns the values of a recipe that a step reads, by dotted name.

    A name `pack` stands for the content of the whole pack, `pack.faces` for that of one part: the hashes of
    its files and its settings, so that a rebuilt part makes a new key although the recipe is unchanged.

    Raises:
        VisavisError: If the recipe has no such field.
    """
    return {
        name: _pack_content(recipe, name) if name.split(".")[0] == "pack" else _field(recipe, name)
        for name in names
    }


def _field(recipe: Mapping[str, Any], name: str) -> Any:
    value: Any = recipe
    for step in name.split("."):
        if not isinstance(value, Mapping) or step not in value:
            raise VisavisError(
                f"recipe: field {name!r} is missing ({step!r} was not found)",
                fix="pass a resolved recipe, as written by Recipe.model_dump_json()",
            )
        value = value[step]
    return value


def _pack_content(recipe: Mapping[str, Any], name: str) -> dict[str, Any]:
    pack = load_pack(str(_field(recipe, "pack")))
    names = name.split(".")[1:] or sorted(pack.manifest.parts)
    content: dict[str, Any] = {}
    for part in names:
        settings = pack.settings(part)
        prefix = f"{pack.manifest.parts[part].path.rstrip('/')}/"
        files = {path: digest for path, digest in pack.manifest.files.items() if path.startswith(prefix)}
        content[part] = {"settings": settings, "files": files}
    return content


def code_version(module: str) -> str:
    """Returns a hash of the sources that a module can reach, and of the versions of the libraries they use.

    Imports are read from the syntax tree, inside functions too; nothing is executed. Files that lie beside a
    reached module without being Python (templates, word lists) count as well.

    Args:
        module: Name of an imported module, usually that of a step's body.
    """
    digest = hashlib.sha256()
    libraries: set[str] = set()
    for name, path in sorted(_closure(module, libraries).items()):
        digest.update(f"{name}\0{sha256_file(path)}\n".encode())
    for library in sorted(libraries):
        digest.update(f"{library}=={_version(library)}\n".encode())
    return digest.hexdigest()


def _closure(module: str, libraries: set[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    start = Path(str(sys.modules[module].__file__))
    queue: list[tuple[str, Path]] = [(module, start)]
    while queue:
        name, path = queue.pop()
        if name in found:
            continue
        found[name] = path
        found.update({str(extra.relative_to(_ROOT)): extra for extra in _companions(path)})
        for target in _imports(path, name):
            top = target.split(".")[0]
            if top != _PACKAGE:
                if top not in sys.stdlib_module_names:
                    libraries.add(top)
                continue
            queue.extend((name, path) for name, path in _files_of(target) if not _is_unhashed(name))
    return found


def _is_unhashed(name: str) -> bool:
    return name in _UNHASHED or name.startswith(_UNHASHED_BELOW)


def _companions(path: Path) -> list[Path]:
    if _ROOT not in path.parents or path.parent == _ROOT:
        return []
    siblings = (file for file in path.parent.iterdir() if file.is_file() and not file.name.startswith("."))
    return [file for file in siblings if file.suffix not in {".py", ".pyc", ".pyi"}]


def _files_of(target: str) -> Iterator[tuple[str, Path]]:
    """Yields the module that `target` names, or that holds what it names, and the packages around it."""
    parts = target.split(".")
    for length in range(1, len(parts) + 1):
        base = _ROOT.joinpath(*parts[1:length])
        if (base / "__init__.py").is_file():
            yield ".".join(parts[:length]), base / "__init__.py"
        elif length > 1 and base.with_suffix(".py").is_file():
            yield ".".join(parts[:length]), base.with_suffix(".py")


@lru_cache(maxsize=512)
def _imports(path: Path, name: str) -> tuple[str, ...]:
    targets: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            steps = package.split(".")
            above = ".".join(steps[: len(steps) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module or "") if part)
            targets.extend(f"{base}.{alias.name}" for alias in node.names)
    return tuple(targets)


@lru_cache(maxsize=128)
def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # imported by another name than it is installed by (cv2, PIL); the lock file pins it
