from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.items import RoundItem, clusters_of
from visavis.evaluation.rounds import score_rounds, slices_of, summarise_rounds, summarise_slices

from .conftest import COLOURS, FakeFaces, paint, person

NAMES = list(COLOURS)
CONFIG = EvaluateConfig(bootstrap_samples=300)


def chats(count: int, right: object, seed: int = 0) -> list[RoundItem]:
    """`right(chat, round, item fields)` says whether the model paints the person asked for."""
    rng = np.random.default_rng(seed)
    items = []
    for chat in range(count):
        left, other = rng.choice(len(NAMES), 2, replace=False)
        people = {"left": NAMES[left], "right": NAMES[other]}
        order = ["left", "right"] if rng.random() < 0.5 else ["right", "left"]
        left_first = bool(rng.random() < 0.5)
        for index, side in enumerate(order):
            asked, rival = people[side], people["right" if side == "left" else "left"]
            fields = {"asked_side": side, "left_first": left_first, "described": bool(rng.random() < 0.5)}
            painted = asked if right(chat, index + 2, fields, rng) else rival  # type: ignore[operator]
            items.append(
                RoundItem(
                    chat_id=f"chat-{chat:03d}",
                    round=index + 2,
                    generated=person(painted, rng),
                    asked_true=person(asked, rng),
                    other_true=person(rival, rng),
                    **fields,
                )
            )
    return items


def test_a_model_that_binds_names_is_right_in_every_slice(faces: FakeFaces) -> None:
    scores = score_rounds(chats(40, lambda *_: True), faces, CONFIG)
    figures = summarise_rounds(scores, [], CONFIG)
    accuracy = figures["right_person_accuracy"]
    assert accuracy.value == 1
    assert accuracy.n == 80
    assert accuracy.clusters == 40
    assert accuracy.chance == 0.5
    assert 0.85 < accuracy.ci95[0] < 1
    assert figures["margin"].ci95[0] > 0
    assert figures["right_person_accuracy_pixels"].value == 1
    assert all(figure.value == 1 for figure in summarise_slices(scores).values())


def test_items_that_share_anything_also_through_others_are_one_cluster() -> None:
    shared = [["ann", "bob"], ["cleo", "dan"], ["bob", "eve"], [], ["dan"], ["fay", "eve"], []]
    clusters = clusters_of(shared)
    groups = [{i for i, name in enumerate(clusters) if name == one} for one in dict.fromkeys(clusters)]
    assert groups == [{0, 2, 5}, {1, 4}, {3}, {6}]


def test_chats_that_share_people_widen_the_interval(faces: FakeFaces) -> None:
    luck = np.random.default_rng(1).random(20) < 0.5
    items = chats(40, lambda chat, *_: luck[chat // 2])
    pairs = [[f"person-{int(item.chat_id[-3:]) // 2}"] for item in items]
    linked = [replace(item, cluster_id=name) for item, name in zip(items, clusters_of(pairs), strict=True)]
    alone, together = (
        summarise_rounds(score_rounds(rows, faces, CONFIG), [], CONFIG)["right_person_accuracy"]
        for rows in (items, linked)
    )
    assert (alone.value, alone.clusters, together.clusters) == (together.value, 40, 20)
    assert together.ci95[1] - together.ci95[0] > 1.2 * (alone.ci95[1] - alone.ci95[0])


def test_a_model_that_paints_the_first_named_person_is_found_out_by_the_slices(faces: FakeFaces) -> None:
    def right(chat: int, number: int, fields: dict[str, object], rng: np.random.Generator) -> bool:
        return (fields["asked_side"] == "left") == fields["left_first"]

    scores = score_rounds(chats(60, right), faces, CONFIG)
    slices = summarise_slices(scores)
    assert summarise_rounds(scores, [], CONFIG)["right_person_accuracy"].value == pytest.approx(0.5)
    assert slices["asked_named_first"].value == 1
    assert slices["asked_named_second"].value == 0


def test_a_model_that_reads_only_the_caption_fails_the_undescribed(faces: FakeFaces) -> None:
    def right(chat: int, number: int, fields: dict[str, object], rng: np.random.Generator) -> bool:
        return bool(fields["described"]) or bool(rng.random() < 0.5)

    figures = summarise_rounds(score_rounds(chats(100, right), faces, CONFIG), [], CONFIG)
    assert figures["right_person_accuracy"].ci95[0] > 0.6
    low, high = figures["right_person_accuracy_undescribed"].ci95
    assert low < 0.5 < high


def test_the_image_ablation_is_reported_with_its_paired_drop(faces: FakeFaces) -> None:
    items = chats(60, lambda *_: True)
    rng = np.random.default_rng(9)
    blind = [item if rng.random() < 0.5 else replace(item, generated=item.other_true) for item in items]
    figures = summarise_rounds(
        score_rounds(items, faces, CONFIG), score_rounds(blind[:100], faces, CONFIG), CONFIG
    )
    assert figures["image_ablation"].n == 100
    assert figures["image_ablation"].ci95[0] < 0.5 < figures["image_ablation"].ci95[1]
    assert figures["image_ablation_drop"].n == 100
    assert figures["image_ablation_drop"].ci95[0] > 0.3


def test_a_close_up_without_a_face_is_wrong_under_every_policy(faces: FakeFaces) -> None:
    items = chats(10, lambda *_: True)
    items[::2] = [replace(item, generated=paint(None)) for item in items[::2]]
    for policy in ("zero", "skip"):
        config = EvaluateConfig(no_face=policy, bootstrap_samples=300)
        figures = summarise_rounds(score_rounds(items, faces, config), [], config)
        assert figures["right_person_accuracy"].value == 0.5
        assert figures["detection_rate"].value == 0.5
    assert figures["arcface_to_asked"].n == 10


def test_rounds_whose_truth_shows_no_face_cannot_be_scored(faces: FakeFaces) -> None:
    items = chats(10, lambda *_: True)
    items[0] = replace(items[0], other_true=paint(None))
    scores = score_rounds(items, faces, CONFIG)
    assert not scores[0].scorable
    assert summarise_rounds(scores, [], CONFIG)["right_person_accuracy"].n == 19


def test_swapping_the_two_people_turns_right_into_wrong(faces: FakeFaces) -> None:
    items = chats(20, lambda chat, *_: chat % 3 > 0)
    swapped = [replace(item, asked_true=item.other_true, other_true=item.asked_true) for item in items]
    first, second = score_rounds(items, faces, CONFIG), score_rounds(swapped, faces, CONFIG)
    assert [score.right for score in first] == [not score.right for score in second]
    assert [score.right_by_pixels for score in first] == [not score.right_by_pixels for score in second]


def test_tokens_and_own_pictures_are_reported_apart(faces: FakeFaces) -> None:
    items = chats(6, lambda *_: True)
    tokens = np.random.default_rng(0).normal(size=(2, 64, 8))
    items = [
        replace(item, generated_tokens=tokens[0] * 0.9, asked_tokens=tokens[0], other_tokens=tokens[1])
        for item in items
    ]
    items[-2:] = [replace(item, history="own") for item in items[-2:]]
    figures = summarise_rounds(score_rounds(items, faces, CONFIG), [], CONFIG)
    assert figures["right_person_accuracy_tokens"].value == 1
    assert figures["right_person_accuracy"].n == 10
    assert figures["right_person_accuracy_own_picture"].n == 2


def test_pixels_are_compared_at_the_size_of_the_generated_picture(faces: FakeFaces) -> None:
    item = chats(1, lambda *_: True)[0]
    large = replace(
        item,
        asked_true=np.kron(item.asked_true, np.ones((2, 2, 1), np.uint8)),
        other_true=np.kron(item.other_true, np.ones((2, 2, 1), np.uint8)),
    )
    assert score_rounds([large], faces, CONFIG)[0].right_by_pixels


def test_slices_name_what_the_caption_tells() -> None:
    image = paint(None)
    item = RoundItem(
        "c", 3, image, image, image, False, "right", True, side_told=False, other_described=False
    )
    assert slices_of(item) == (
        "undescribed",
        "asked_right",
        "left_named_first",
        "asked_named_second",
        "round_3",
        "side_untold",
        "nobody_described",
    )


def test_nothing_to_score_is_null_and_not_an_error(faces: FakeFaces) -> None:
    figures = summarise_rounds(score_rounds([], faces, CONFIG), [], CONFIG)
    assert figures["right_person_accuracy"].to_dict() == {"value": None, "ci95": None, "n": 0, "chance": 0.5}
