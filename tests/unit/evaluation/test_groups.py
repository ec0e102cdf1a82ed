from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from visavis.errors import VisavisError
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.groups import score_prompted, summarise_prompted
from visavis.evaluation.items import PromptedItem
from visavis.evaluation.prompts import NAME, load_prompts
from visavis.packs import load_pack
from visavis.packs.loaders import load_clip, load_mllm

from .conftest import COLOURS, FakeFaces, paint, person
from .test_alignment import ColourClip

CONFIG = EvaluateConfig(bootstrap_samples=300)


def prompted(painted_by_group: dict[str, str | None]) -> list[PromptedItem]:
    """Pictures of everybody in each group: of themselves unless the group names somebody else or nobody."""
    rng = np.random.default_rng(0)
    return [
        PromptedItem(
            f"{group}-{name}",
            group,
            name,
            f"{name} on the beach",
            person(name, rng),
            person(name if painted == "self" else painted, rng),
        )
        for group, painted in painted_by_group.items()
        for name in COLOURS
    ]


def test_groups_tell_what_is_kept_of_face_and_words(faces: FakeFaces) -> None:
    items = prompted({"easy": "self", "conflicting": "olivia", "face_changing": None})
    figures = summarise_prompted(score_prompted(items, faces, ColourClip(), CONFIG), CONFIG)
    assert list(figures) == ["easy", "conflicting", "face_changing"]
    assert figures["easy"]["arcface"].value > 0.9
    assert figures["easy"]["clip_t"].value > 90
    assert figures["conflicting"]["arcface"].ci95[1] < 0.9
    assert figures["conflicting"]["clip_t"].value < 60
    assert figures["face_changing"]["detection_rate"].value == 0
    assert figures["face_changing"]["arcface"].value == 0
    assert figures["easy"]["arcface"].clusters == figures["easy"]["arcface"].n == len(COLOURS)


def test_the_policy_skip_leaves_out_pictures_without_a_face(faces: FakeFaces) -> None:
    config = CONFIG.model_copy(update={"no_face": "skip"})
    items = prompted({"easy": "self"})
    items[0] = replace(items[0], generated=paint(None))
    items[1] = replace(items[1], source_face=paint(None))
    figures = summarise_prompted(score_prompted(items, faces, ColourClip(), config), config)["easy"]
    assert (figures["arcface"].n, figures["detection_rate"].n, figures["clip_t"].n) == (4, 5, 6)


def test_no_pictures_leave_every_figure_there_without_a_value(faces: FakeFaces) -> None:
    figures = summarise_prompted(score_prompted([], faces, ColourClip(), CONFIG), CONFIG)
    assert all(
        figure.to_dict() == {"value": None, "ci95": None, "n": 0}
        for group in figures.values()
        for figure in group.values()
    )


@pytest.mark.parametrize("name", ["storybook", "photos"])
def test_every_world_has_the_same_groups_and_enough_ways_to_ask_again(name: str) -> None:
    prompts = load_prompts(name)
    assert list(prompts.groups) == ["easy", "conflicting", "face_changing"]
    assert all(len(set(captions)) == len(captions) >= 4 for captions in prompts.groups.values())
    assert len(set(prompts.again)) >= EvaluateConfig().retention_rounds - 2
    assert all(words.count(NAME) == 1 for words in prompts.again)


def test_the_storybook_models_know_every_word() -> None:
    prompts, pack = load_prompts("storybook"), load_pack("storybook")
    for tokenizer in (load_mllm(pack)[1], load_clip(pack)[1].tokenizer):
        captions = [caption for group in prompts.groups.values() for caption in group]
        for words in (*captions, *(again.replace(NAME, "Olivia") for again in prompts.again)):
            assert tokenizer.unk_token_id not in tokenizer(words)["input_ids"], words


def test_an_unknown_world_names_those_there_are() -> None:
    with pytest.raises(VisavisError, match="storybook, photos"):
        load_prompts("mars")
