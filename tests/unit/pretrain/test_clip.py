"""CLIP: captions of rows, batches, and a training that goes on where it was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPProcessor

from visavis.models.pixels import to_tensor
from visavis.pretrain import clip
from visavis.pretrain.clip import (
    MAX_WORDS,
    SceneRows,
    build_clip,
    embed,
    image_processor,
    row_caption,
    train_clip,
)
from visavis.pretrain.pictures import PictureSet
from visavis.training.config import OptimConfig


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    """A small set."""
    return PictureSet.build(tmp_path_factory.mktemp("pictures") / "small", count=40, seed=300)


def captions(row: dict[str, Any], count: int = 30, complete: bool = False) -> list[str]:
    return [row_caption(row, np.random.default_rng(seed), complete) for seed in range(count)]


def test_complete_captions_tell_all(pictures: PictureSet) -> None:
    for index in pictures.select("scene"):
        row = pictures.rows[index]
        for text in captions(row, 3, complete=True):
            told = [word for person in row["people"] for word in (*person["looks"], person["clothes"])]
            assert all(phrase in text for phrase in told) and text.endswith(row["place"])


def test_captions_tell_only_what_is_to_be_seen(pictures: PictureSet) -> None:
    for index in pictures.select("closeup")[:10]:
        row = pictures.rows[index]
        for text in captions(row):
            assert text.startswith("a close-up photo of ") and row["place"] not in text
            assert row["people"][0]["clothes"] not in text
            assert "on the left" not in text and "on the right" not in text
    empty = pictures.rows[pictures.select("scene", "empty")[0]]
    assert set(captions(empty)) == {empty["place"]}


def test_captions_vary_and_their_words_are_known(pictures: PictureSet) -> None:
    tokenizer = build_clip()[1]
    texts = captions(pictures.rows[pictures.select("scene", "pair")[0]])
    assert len(set(texts)) > 20
    tokens = tokenizer(texts)["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in tokens)
    assert all(row[-1] == tokenizer.eos_token_id and len(row) <= MAX_WORDS for row in tokens)


def test_a_batch_has_one_picture_of_a_scene(pictures: PictureSet) -> None:
    scenes, kinds = SceneRows(pictures.rows), set()
    for seed in range(5):
        rows = scenes.draw(np.random.default_rng(seed), 40)
        assert sorted(pictures.rows[i]["scene"] for i in rows) == list(range(40))
        kinds |= {pictures.rows[i]["kind"] for i in rows}
    assert kinds == {"scene", "moved", "closeup", "portrait"}


def test_the_processor_sees_as_the_training_does(pictures: PictureSet) -> None:
    given = image_processor()(images=[pictures.images[0]], return_tensors="pt")["pixel_values"]
    assert torch.allclose(given, to_tensor(pictures.images[:1]), atol=1e-5)


def test_training_keeps_the_words_in_its_second_stage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pictures: PictureSet
) -> None:
    monkeypatch.setattr(clip, "_AMONG", 8)
    config = OptimConfig(steps=2, batch_size=8, lr=1e-3, warmup=1, log_every=1)
    first = train_clip(tmp_path / "work", tmp_path / "first", pictures.root, pictures.root, config, seconds=0)
    assert set(first) == {"recall_at_1_among_64_scenes", "recall_at_1_among_64_pairs"}
    train_clip(tmp_path / "work", tmp_path / "second", pictures.root, pictures.root, config, seconds=0.2)
    models = [
        clip.CLIPModel.from_pretrained(tmp_path / name, dtype=torch.float32) for name in ("first", "second")
    ]
    before, after = (model.state_dict() for model in models)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any(name.startswith("text_model.") for name in changed)
    assert any(name.startswith("vision_model.") for name in changed)
    processor = CLIPProcessor.from_pretrained(tmp_path / "second")
    words, seen = embed(models[1].eval(), processor.tokenizer, ["a photo"], to_tensor(pictures.images[:2]))
    assert words.shape == (1, 128) and seen.shape == (2, 128)
    assert torch.allclose(seen.norm(dim=1), torch.ones(2), atol=1e-5)
