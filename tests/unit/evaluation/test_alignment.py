from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torchmetrics.multimodal import CLIPScore
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

from visavis.evaluation.alignment import Clip, clipscore, score_alignment, summarise_alignment
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.items import FirstRoundItem, SingleRoundItem
from visavis.packs import load_pack
from visavis.packs.loaders import load_clip
from visavis.storybook.captions import caption
from visavis.storybook.draw import render
from visavis.storybook.people import sample_person
from visavis.storybook.shots import sample_scene

from .conftest import COLOURS, person

CONFIG = EvaluateConfig(bootstrap_samples=300, retrieval_candidates=4, batch_size=3)


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A CLIP with random weights, in the library's own classes."""
    words = ["a", "on", "the", "beach", *COLOURS]
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {word: i + 4 for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=small
        | {
            "vocab_size": 32,
            "max_position_embeddings": 8,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config=small | {"image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    torch.manual_seed(0)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return Clip(CLIPModel(config), CLIPProcessor(images, fast), batch_size=3)


class TensorClip(torch.nn.Module):
    """Returns features as transformers 4 did, which torchmetrics 1.9 expects."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model.get_image_features(pixel_values=pixel_values).pooler_output

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output


class ColourClip:
    """Knows the colours of the people; stands in for a trained CLIP."""

    truncated = 0

    def images(self, pictures: list[np.ndarray], *, unit: bool = True) -> np.ndarray:
        colours = np.array([picture[24, 24].astype(float) - 128 for picture in pictures]).reshape(-1, 3)
        return colours / np.maximum(np.linalg.norm(colours, axis=1, keepdims=True), 1e-6)

    def texts(self, captions: list[str]) -> np.ndarray:
        colours = (
            np.array([COLOURS[caption.split()[0]] for caption in captions], dtype=float).reshape(-1, 3) - 128
        )
        return colours / np.maximum(np.linalg.norm(colours, axis=1, keepdims=True), 1e-6)


def items(painted: dict[str, str] | None = None) -> list[SingleRoundItem]:
    painted = painted or {}
    return [
        SingleRoundItem(
            f"i{index}",
            name,
            f"{name} on the beach",
            person(name),
            person(name),
            person(painted.get(name, name)),
        )
        for index, name in enumerate(COLOURS)
    ]


def test_features_are_those_of_the_model(clip: Clip) -> None:
    pictures = [person(name) for name in COLOURS]
    captions = [f"{name} on the beach" for name in COLOURS]
    inputs = clip._processor(
        images=[Image.fromarray(picture) for picture in pictures],
        text=captions,
        return_tensors="pt",
        padding=True,
    )
    with torch.inference_mode():
        reference = clip._model(**inputs)
    assert clip.images(pictures) == pytest.approx(reference.image_embeds.numpy(), abs=1e-5)
    assert clip.texts(captions) == pytest.approx(reference.text_embeds.numpy(), abs=1e-5)
    raw = clip.images(pictures, unit=False)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert abs(lengths - 1).min() > 1e-3
    assert raw / lengths == pytest.approx(reference.image_embeds.numpy(), abs=1e-5)


def test_captions_that_are_cut_are_counted(clip: Clip) -> None:
    before = clip.truncated
    clip.texts(["a a a a a a", "a " * 7, "a " * 30])
    assert clip.truncated - before == 2


def test_the_score_is_a_hundred_cosines(clip: Clip) -> None:
    scores = score_alignment(items(), clip, CONFIG)
    image, text = clip.images([person("olivia")])[0], clip.texts(["olivia on the beach"])[0]
    assert scores[0].clip == pytest.approx(100 * float(image @ text), abs=1e-3)
    assert scores[0].clip_true == pytest.approx(scores[0].clip, abs=1e-3)


@pytest.mark.filterwarnings("ignore:.max_length. is ignored")
def test_clipscore_is_that_of_hessel_and_both_scales_are_that_of_torchmetrics() -> None:
    model, processor = load_clip(load_pack("storybook"))
    pack = Clip(model, processor)
    rng = np.random.default_rng(1)
    scene = sample_scene(rng, (sample_person(rng),), "portrait")
    picture = render(scene, 64, 64).image
    words = (caption(scene), "Headphones and a crown in the forest.")
    given = [FirstRoundItem(f"i{n}", said, picture) for n, said in enumerate(words)]
    figures = summarise_alignment(score_alignment(given, pack, CONFIG), CONFIG)
    right, wrong = (float(pack.images([picture])[0] @ pack.texts([said])[0]) for said in words)
    assert right > 0.2 and right > wrong
    metric = CLIPScore(model_name_or_path=lambda: (TensorClip(model), processor))
    metric.update([torch.from_numpy(picture.transpose(2, 0, 1).copy())] * 2, list(words))
    assert figures["clip_score"].value == pytest.approx(float(metric.compute()), abs=1e-3)
    expected = 2.5 * (max(right, 0) + max(wrong, 0)) / 2
    assert figures["clipscore_hessel"].value == pytest.approx(expected, abs=1e-4)


def test_a_picture_against_its_words_counts_as_zero_in_clipscore_only() -> None:
    assert clipscore(-40.0) == 0
    assert clipscore(100.0) == 2.5


def test_retrieval_finds_right_captions_and_notices_wrong_pictures() -> None:
    right = summarise_alignment(score_alignment(items(), ColourClip(), CONFIG), CONFIG)
    assert right["caption_retrieval"].value == 1
    assert right["caption_retrieval"].chance == 0.25
    assert right["clip_score"].value == pytest.approx(100)
    swapped = dict(zip(COLOURS, [*list(COLOURS)[1:], "olivia"], strict=True))
    config = CONFIG.model_copy(update={"retrieval_candidates": 32})
    wrong = summarise_alignment(score_alignment(items(swapped), ColourClip(), config), config)
    assert wrong["caption_retrieval"].value == 0
    assert wrong["caption_retrieval"].chance == pytest.approx(1 / 6)
    assert wrong["clip_score_true"].value == pytest.approx(100)


def test_distractors_stay_when_the_order_of_items_changes() -> None:
    swapped = {"olivia": "mia", "mia": "noah"}
    forward = score_alignment(items(swapped), ColourClip(), CONFIG)
    backward = score_alignment(items(swapped)[::-1], ColourClip(), CONFIG)
    assert {s.item_id: s.retrieved for s in forward} == {s.item_id: s.retrieved for s in backward}


def test_pictures_of_round_one_have_their_own_names() -> None:
    first = [FirstRoundItem(f"f{i}", f"{name} on the beach", person(name)) for i, name in enumerate(COLOURS)]
    figures = summarise_alignment(score_alignment(first, ColourClip(), CONFIG), CONFIG, suffix="_round_1")
    assert figures["clip_score_round_1"].n == 6
    assert figures["clip_score_true_round_1"].value is None


def test_a_single_caption_has_no_distractors() -> None:
    figures = summarise_alignment(score_alignment(items()[:1], ColourClip(), CONFIG), CONFIG)
    assert figures["caption_retrieval"].to_dict() == {"value": None, "ci95": None, "n": 0}
    assert figures["clip_score"].n == 1
