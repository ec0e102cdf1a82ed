from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.identity import copy_paste, score_single_round, summarise_single_round
from visavis.evaluation.items import SingleRoundItem

from .conftest import COLOURS, FakeFaces, paint, person

NAMES = list(COLOURS)
CONFIG = EvaluateConfig(bootstrap_samples=300)


def make(generated: str | None, name: str, index: int, rng: np.random.Generator) -> SingleRoundItem:
    return SingleRoundItem(
        item_id=f"item-{index}",
        person_id=name,
        caption=f"{name} on the beach",
        source_face=person(name, rng),
        target=person(name, rng),
        generated=person(generated, rng),
    )


def items_of(kind: str, count: int = 24) -> list[SingleRoundItem]:
    rng = np.random.default_rng(0)
    items = []
    for index in range(count):
        name = NAMES[index % len(NAMES)]
        made: str | None = name
        if kind == "random":
            made = NAMES[rng.integers(len(NAMES))]
        elif kind == "half_empty" and index % 4 == 0:
            made = None
        items.append(make(made, name, index, rng))
    return items


def test_a_model_that_keeps_the_person_beats_a_random_person(faces: FakeFaces) -> None:
    figures = summarise_single_round(score_single_round(items_of("kept"), faces, CONFIG), CONFIG)
    assert figures["arcface_single_round"].value > 0.9
    assert figures["margin"].ci95[0] > 0
    assert figures["closer_than_random_person"].value == 1
    assert figures["detection_rate"].value == 1
    assert figures["arcface_single_round"].clusters == len(NAMES)
    assert figures["arcface_single_round"].value - figures["arcface_to_other"].value == pytest.approx(
        figures["margin"].value
    )
    assert figures["arcface_real_pair"].value > 0.9


def test_a_model_that_paints_anybody_does_not(faces: FakeFaces) -> None:
    figures = summarise_single_round(score_single_round(items_of("random", 60), faces, CONFIG), CONFIG)
    assert figures["margin"].ci95[0] < 0.15
    assert abs(figures["closer_than_random_person"].value - 0.5) < 0.2


def test_no_face_counts_as_zero_or_is_skipped_and_the_rate_is_reported(faces: FakeFaces) -> None:
    scores = score_single_round(items_of("half_empty"), faces, CONFIG)
    zero = summarise_single_round(scores, CONFIG)
    skip = summarise_single_round(scores, EvaluateConfig(no_face="skip", bootstrap_samples=300))
    assert zero["detection_rate"].value == skip["detection_rate"].value == 0.75
    assert zero["arcface_single_round"].n == 24
    assert skip["arcface_single_round"].n == 18
    assert zero["arcface_single_round"].value == pytest.approx(0.75 * skip["arcface_single_round"].value)
    assert zero["arcface_single_round_detected"] == skip["arcface_single_round"]
    assert zero["margin"].n == 24
    assert zero["closer_than_random_person"].value == 0.75


def test_an_item_whose_given_face_is_not_found_is_left_out(faces: FakeFaces) -> None:
    items = items_of("kept")
    items[0] = replace(items[0], source_face=paint(None))
    scores = score_single_round(items, faces, CONFIG)
    assert [score.scorable for score in scores].count(False) == 1
    assert summarise_single_round(scores, CONFIG)["arcface_single_round"].n == 23


def test_a_given_other_face_takes_the_place_of_the_test_set(faces: FakeFaces) -> None:
    items = items_of("kept", 6)
    same = [replace(item, other_face=item.source_face) for item in items]
    scores = score_single_round(same, faces, CONFIG)
    assert all(score.to_other == pytest.approx(score.to_source) for score in scores)
    assert summarise_single_round(scores, CONFIG)["margin"].value == pytest.approx(0)


def test_one_person_alone_has_no_margin(faces: FakeFaces) -> None:
    rng = np.random.default_rng(0)
    figures = summarise_single_round(
        score_single_round([make("mia", "mia", i, rng) for i in range(3)], faces, CONFIG), CONFIG
    )
    assert figures["margin"].value is None
    assert figures["arcface_single_round"].n == 3


def test_the_order_of_items_does_not_change_a_figure(faces: FakeFaces) -> None:
    items = items_of("random")
    forward = summarise_single_round(score_single_round(items, faces, CONFIG), CONFIG)
    backward = summarise_single_round(score_single_round(items[::-1], faces, CONFIG), CONFIG)
    for name, figure in forward.items():
        assert figure.value == pytest.approx(backward[name].value), name
        assert figure.ci95 == pytest.approx(backward[name].ci95), name


def test_copy_paste_is_one_for_a_copy_and_minus_one_for_the_target() -> None:
    def unit(degrees: float) -> np.ndarray:
        return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], dtype=np.float32)

    source, target = unit(0), unit(60)
    assert copy_paste(source, target, source) == pytest.approx(1, abs=1e-3)
    assert copy_paste(target, target, source) == pytest.approx(-1, abs=1e-3)
    assert copy_paste(unit(30), target, source) == pytest.approx(0, abs=1e-3)
    assert copy_paste(None, target, source) is None
    assert copy_paste(source, source, source) is None
