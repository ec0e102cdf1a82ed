"""Building a pack: what is trained, in which order, and what the card says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from visavis.errors import VisavisError
from visavis.files import read_json, write_atomic, write_json
from visavis.packs import load_pack
from visavis.pretrain import build as builder
from visavis.pretrain.build import FIGURES, PLANS, TRAINED_BY, assemble, build
from visavis.training.engine.checkpoints import COMPLETE
from visavis.training.engine.loop import CHECKPOINTS

MODULES = {
    module: name for name, plan in PLANS.items() for module, *_ in filter(None, (plan.command, plan.then))
}


def finish(parts: Path, name: str, mark: str = "") -> None:
    folder = parts / PLANS[name].folder
    write_atomic(folder / "deep" / "model.safetensors", f"weights of {name}{mark}".encode())
    write_json(folder / FIGURES, {key: target or 0.5 for key, (_, target) in PLANS[name].figures.items()})


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Stands in for the trainers; holds the modules that were run."""
    ran: list[str] = []

    def run(module: str, arguments: Sequence[str], say: Callable[[str], None]) -> None:
        assert not any("{" in argument for argument in arguments)
        ran.append(module)
        if module == "pictures":
            write_json(Path(arguments[1]) / "set.json", {})
        else:
            finish(tmp_path / "work" / "parts", MODULES[module], " anew")

    monkeypatch.setattr(builder, "_run", run)
    return ran


def test_a_build_from_nothing_trains_all_in_order_and_only_once(tmp_path: Path, trained: list[str]) -> None:
    manifest = build(tmp_path / "work", tmp_path / "pack")
    expected = ["faces", "segmenter", "encoder", "autoencoder", "clip", "text_to_image", "round_trip", "mllm"]
    assert trained == ["pictures", "pictures", *expected]
    assert list(manifest.parts) == list(PLANS)
    pack = load_pack(tmp_path / "pack")
    pack.verify()
    assert pack.settings("faces")["name"] == "storybook"
    trained.clear()
    build(tmp_path / "work", tmp_path / "pack")
    assert trained == []


def test_a_part_trained_anew_begins_afresh_and_so_does_what_needs_it(
    tmp_path: Path, trained: list[str]
) -> None:
    work = tmp_path / "work"
    build(work, tmp_path / "pack")
    checkpoint = Path(CHECKPOINTS) / "step-000000001" / COMPLETE
    stale = [
        work / "encoder" / checkpoint,
        work / "pictures" / "train" / "tokens.npy",
        work / "text_to_image" / checkpoint,
        work / "mllm" / checkpoint,
    ]
    kept = [
        work / "clip" / checkpoint,
        work / "vae" / "decoder.pt",
        work / "pictures" / "train" / "latents.npy",
    ]
    for path in (*stale, *kept):
        write_atomic(path, b"")
    trained.clear()
    build(work, tmp_path / "pack", ["image_encoder"])
    assert trained == ["encoder", "text_to_image", "round_trip", "mllm"]
    assert not any(path.exists() for path in stale) and all(path.exists() for path in kept)
    assert (work / "replaced" / "mllm" / FIGURES).is_file()
    build(work, tmp_path / "pack", ["clip", "vae"])
    assert not any(path.exists() for path in kept)


def test_a_part_in_training_is_resumed(tmp_path: Path, trained: list[str]) -> None:
    work = tmp_path / "work"
    checkpoint = work / "clip" / CHECKPOINTS / "step-000000001" / COMPLETE
    write_atomic(checkpoint, b"")
    build(work, tmp_path / "pack", ["clip"])
    assert checkpoint.exists()


def test_a_named_part_is_trained_beside_those_of_the_pack_that_is_there(
    tmp_path: Path, trained: list[str]
) -> None:
    root = tmp_path / "pack"
    build(tmp_path / "work", root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    shutil.rmtree(tmp_path / "work")
    trained.clear()
    build(tmp_path / "work", root, ["image_encoder"])
    assert trained == ["pictures", "pictures", "encoder", "text_to_image", "round_trip", "mllm"]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert read_json(root / FIGURES)["clip"][TRAINED_BY][0].startswith("clip --work .work/clip")
    assert "| clip | `clip --work .work/clip" in (root / "card.md").read_text()


def test_a_part_whose_last_command_was_cut_off_is_not_finished(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, run = tmp_path / "work", builder._run

    def cut_off(module: str, arguments: Sequence[str], say: Callable[[str], None]) -> None:
        if module == "round_trip":
            raise KeyboardInterrupt
        run(module, arguments, say)

    monkeypatch.setattr(builder, "_run", cut_off)
    with pytest.raises(KeyboardInterrupt):
        build(work, tmp_path / "pack")
    monkeypatch.setattr(builder, "_run", run)
    trained.clear()
    build(work, tmp_path / "pack")
    assert trained == ["text_to_image", "round_trip", "mllm"]


def test_needed_parts_come_first() -> None:
    names = list(PLANS)
    assert all(names.index(need) < names.index(name) for name, plan in PLANS.items() for need in plan.needs)


def test_an_unknown_part_is_refused(tmp_path: Path, trained: list[str]) -> None:
    with pytest.raises(VisavisError, match="part 'klip' does not exist"):
        build(tmp_path / "work", tmp_path / "pack", ["klip"])
    assert trained == []


def test_a_trainer_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match="nonsense ended with code 1"):
        builder._run("nonsense", (), lambda line: None)


def test_the_card_names_every_figure_and_what_was_missed(tmp_path: Path) -> None:
    for name in PLANS:
        finish(tmp_path / "parts", name)
    write_json(tmp_path / "parts" / "segmenter" / FIGURES, {"iou": 0.86})
    figures = read_json(tmp_path / "parts" / "text_to_image" / FIGURES)
    write_json(
        tmp_path / "parts" / "text_to_image" / FIGURES, {"clean_latent_mse": figures["clean_latent_mse"]}
    )
    assemble(tmp_path / "parts", tmp_path / "pack")
    card = (tmp_path / "pack" / "card.md").read_text()
    assert "| segmenter | mean IoU of head masks | 0.860 | 0.9 (missed) |" in card
    assert "| faces | ArcFace verification AUC | 0.990 | 0.99 |" in card
    assert "scenes, dB | not measured | 23 |" in card
    assert all(words in card for plan in PLANS.values() for words, _ in plan.figures.values())
    assert list((tmp_path / "pack").rglob(FIGURES)) == [tmp_path / "pack" / FIGURES]


def test_a_pack_that_cannot_be_put_together_leaves_the_old_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in PLANS:
        finish(tmp_path / "parts", name)
    assemble(tmp_path / "parts", tmp_path / "pack")
    monkeypatch.setattr(builder, "LARGEST_BYTES", 10)
    with pytest.raises(VisavisError, match="MB, at most"):
        assemble(tmp_path / "parts", tmp_path / "pack")
    (tmp_path / "parts" / "vae" / FIGURES).unlink()
    with pytest.raises(VisavisError, match=r"part vae has no figures\.json"):
        assemble(tmp_path / "parts", tmp_path / "pack")
    load_pack(tmp_path / "pack").verify()
