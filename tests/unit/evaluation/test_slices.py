from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from visavis.evaluation.attributes import attributes_of
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.identity import score_single_round, summarise_identity_slices
from visavis.evaluation.intervals import Figure, bootstrap_mean, difference_of_means
from visavis.evaluation.rounds import score_rounds, summarise_round_slices
from visavis.evaluation.slices import Sliced, summarise_attributes

from .conftest import FakeFaces
from .test_identity import items_of
from .test_rounds import chats

CONFIG = EvaluateConfig(bootstrap_samples=300, min_slice=5)
WORDS = ("a person with round glasses and red hair", "a person with red hair")


def mean(rows: Sequence[Sliced]) -> Figure:
    return bootstrap_mean([row.value for row in rows], samples=300)


def people(levels: dict[str, float], each: int = 40, noise: float = 0.1) -> list[Sliced]:
    """Two items of each of many people; the words of a person decide on their level."""
    rng = np.random.default_rng(0)
    return [
        Sliced(name, name, level + rng.normal(0, noise), attributes_of(words))
        for words, level in levels.items()
        for name in (f"{words}-{index // 2}" for index in range(each))
    ]


def test_a_model_that_is_worse_for_people_with_glasses_shows_a_gap() -> None:
    rows = people(dict(zip(WORDS, (0.4, 0.7), strict=True)))
    slices, gaps = summarise_attributes(rows, mean, CONFIG)
    assert slices["glasses"]["round"].value == pytest.approx(0.4, abs=0.05)
    assert slices["glasses"]["untold"].n == 40
    gap = gaps["glasses"]
    assert gap.value == pytest.approx(slices["glasses"]["untold"].value - slices["glasses"]["round"].value)
    assert gap.ci95[0] > 0.2 > gap.chance
    assert (gap.n, gap.clusters) == (80, 40)


def test_the_gap_of_a_fair_model_is_that_of_chance() -> None:
    words = [f"a person with {colour} hair" for colour in ("red", "black", "brown", "blond", "gray", "blue")]
    _, gaps = summarise_attributes(people(dict.fromkeys(words, 0.5), each=12), mean, CONFIG)
    assert gaps["hair_colour"].value == pytest.approx(gaps["hair_colour"].chance, rel=0.6)
    assert gaps["hair_colour"].chance > 0.02, "small slices differ without unfairness"


def test_items_of_one_person_are_dealt_together() -> None:
    rng = np.random.default_rng(1)
    level = rng.normal(0.5, 0.2, 20)
    rows = [
        Sliced(f"p{n // 10}", f"p{n // 10}", level[n // 10], attributes_of(WORDS[n // 10 % 2]))
        for n in range(200)
    ]
    alone = [replace(row, person=str(n)) for n, row in enumerate(rows)]
    together, apart = (
        summarise_attributes(part, mean, CONFIG)[1]["glasses"].chance for part in (rows, alone)
    )
    assert together > 1.5 * apart


def test_small_slices_are_shown_but_count_in_no_gap() -> None:
    rows = people(dict.fromkeys(WORDS, 0.5), each=20)
    rows += [replace(rows[0], value=-1.0, attributes=attributes_of("sunglasses and red hair"))] * 4
    slices, gaps = summarise_attributes(rows, mean, CONFIG)
    assert slices["glasses"]["sunglasses"].n == 4
    assert gaps["glasses"].value < 0.2
    assert gaps["hair_colour"].to_dict() == {"value": None, "ci95": None, "n": 0}


def test_an_attribute_that_is_told_of_nobody_and_people_of_whom_nothing_is_said_are_left_out() -> None:
    rows = people(dict.fromkeys(WORDS, 0.5))
    slices, gaps = summarise_attributes([*rows, replace(rows[0], attributes={})], mean, CONFIG)
    assert slices.keys() == gaps.keys() == {"hair_colour", "glasses"}
    assert sum(figure.n for figure in slices["glasses"].values()) == len(rows)
    assert summarise_attributes([], mean, CONFIG) == ({}, {})


def test_identity_and_rounds_are_sliced_by_the_words_of_their_items(faces: FakeFaces) -> None:
    singles = [replace(item, description=WORDS[n % 2]) for n, item in enumerate(items_of("half_empty"))]
    part = summarise_identity_slices(score_single_round(singles, faces, CONFIG), CONFIG)
    assert part["slices"]["glasses"]["round"].value == pytest.approx(0.5, abs=0.05), "no face counts as 0"
    assert part["slices"]["glasses"]["untold"].value > 0.9
    rounds = [
        replace(item, description=WORDS[n % 2], person_id=f"p{n}")
        for n, item in enumerate(chats(20, lambda _, number, *__: number == 2))
    ]
    part = summarise_round_slices(score_rounds(rounds, faces, CONFIG), CONFIG)
    assert part["slices"]["round_2"].value == part["slices"]["glasses"]["round"].value == 1
    assert part["slices"]["glasses"]["untold"].chance == 0.5
    assert part["gap"]["glasses"].value == 1


def test_without_descriptions_there_are_no_slices(faces: FakeFaces) -> None:
    part = summarise_identity_slices(score_single_round(items_of("kept"), faces, CONFIG), CONFIG)
    assert part == {"slices": {}, "gap": {}}


def test_a_difference_of_means_is_covered_by_its_interval_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = np.concatenate([rng.normal(0.2, 1, 40), rng.normal(0, 1, 40)])
        figure = difference_of_means(
            values, np.arange(80) < 40, clusters=[str(n) for n in range(80)], samples=400, seed=trial
        )
        covered += figure.ci95[0] <= 0.2 <= figure.ci95[1]
    assert 180 <= covered <= 198


def test_a_single_cluster_has_a_difference_without_interval() -> None:
    figure = difference_of_means([1.0, 0.0], [True, False], clusters=["a", "a"])
    assert (figure.value, figure.ci95, figure.clusters) == (1.0, None, 1)
