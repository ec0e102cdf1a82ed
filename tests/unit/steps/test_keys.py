"""Keys: which sources a module reaches, and what a pack contributes."""

from __future__ import annotations

from pathlib import Path

import pytest

import visavis.data.ledger
from visavis.packs.manifest import Manifest, Part, write_manifest
from visavis.steps import keys


def test_the_closure_follows_imports_but_not_what_only_reports() -> None:
    libraries: set[str] = set()
    found = keys._closure(visavis.data.ledger.__name__, libraries)
    assert {"visavis.data.ledger", "visavis.files"} <= set(found)
    assert not {"visavis.recipes", "visavis.tracking", "visavis.errors"} & set(found)
    assert "json" not in libraries


def test_the_version_changes_with_a_reached_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "visavis"
    package.mkdir()
    for name, text in {"a": "def f():\n    from visavis import b\n", "b": "X = 1\n", "c": "Y = 1\n"}.items():
        (package / f"{name}.py").write_text(text)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(keys, "_ROOT", package)
    monkeypatch.setitem(
        keys.sys.modules, "visavis.a", type("Module", (), {"__file__": str(package / "a.py")})
    )

    first = keys.code_version("visavis.a")
    (package / "c.py").write_text("Y = 2\n")
    assert keys.code_version("visavis.a") == first
    (package / "b.py").write_text("X = 2\n")
    assert keys.code_version("visavis.a") != first


def test_a_rebuilt_part_changes_only_the_sections_that_name_it(tmp_path: Path) -> None:
    for part in ("faces", "clip"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.bin").write_bytes(b"one")
    parts = {name: Part(path=name, licence="MIT") for name in ("faces", "clip")}
    write_manifest(tmp_path, Manifest(name="toy", version="1", licence="MIT", parts=parts))
    recipe = {"pack": str(tmp_path)}
    before = {name: keys.resolve_section(recipe, [name]) for name in ("pack", "pack.faces", "pack.clip")}
    (tmp_path / "clip" / "model.bin").write_bytes(b"two")
    write_manifest(tmp_path)
    after = {name: keys.resolve_section(recipe, [name]) for name in before}
    assert after["pack.faces"] == before["pack.faces"]
    assert after["pack.clip"] != before["pack.clip"]
    assert after["pack"] != before["pack"]
