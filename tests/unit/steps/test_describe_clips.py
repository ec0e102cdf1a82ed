from pathlib import Path
from typing import Any

import pytest

from visavis.chat.model import ChatModel
from visavis.data.describing.chat_namer import ChatNamer
from visavis.data.describing.namer import RuleNamer
from visavis.packs import Pack, language_parts, load_pack
from visavis.packs.manifest import Manifest, Part, write_manifest
from visavis.recipes import edit, recipe_named
from visavis.steps.describe_clips import _captioner, _namer, described_by
from visavis.steps.keys import resolve_section


@pytest.fixture
def other_pack(tmp_path: Path) -> Pack:
    """A pack that brings a captioner and a namer of its own, and nothing else."""
    parts = {}
    for name in ("captioner", "namer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        parts[name] = Part(path=name, licence="MIT", settings={"max_new_tokens": 7})
    write_manifest(tmp_path, Manifest(name="other", version="1", licence="MIT", parts=parts))
    return load_pack(tmp_path)


def test_the_parts_of_the_pack_decide_who_describes(
    other_pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: dict[str, tuple[Path, dict[str, Any]]] = {}

    def opener(name: str):
        def load(root: Path, settings: dict[str, Any]):
            opened[name] = (root, settings)
            return name

        return load

    monkeypatch.setattr(language_parts, "load_captioner", opener("captioner"))
    monkeypatch.setattr(language_parts, "load_namer", opener("namer"))
    recipe = recipe_named("smoke")
    namer = _namer(other_pack, recipe)
    assert isinstance(namer, ChatNamer) and namer.write == "namer" and namer.config == recipe.describe
    assert _captioner(other_pack) == "captioner"
    assert opened == {
        name: (other_pack.root / name, {"max_new_tokens": 7}) for name in ("captioner", "namer")
    }


def test_a_pack_without_them_describes_by_its_own_model_and_by_rules() -> None:
    pack = load_pack("storybook")
    ask = _captioner(pack)
    assert isinstance(ask.__self__, ChatModel)  # type: ignore[attr-defined]
    assert isinstance(_namer(pack, recipe_named("smoke")), RuleNamer)


def test_the_key_of_the_step_covers_the_parts_that_describe(other_pack: Pack) -> None:
    assert described_by(load_pack("storybook")) == ["mllm", "image_encoder"]
    assert described_by(other_pack) == ["captioner", "namer"]
    recipe = edit(recipe_named("smoke"), {"pack": str(other_pack.root)}).model_dump(mode="json")
    values = resolve_section(recipe, [f"pack.{part}" for part in described_by(other_pack)])
    assert values["pack.namer"]["namer"]["settings"] == {"max_new_tokens": 7}
    assert list(values["pack.captioner"]["captioner"]["files"]) == ["captioner/config.json"]
