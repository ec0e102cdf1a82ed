from __future__ import annotations

from dataclasses import replace

import pytest

from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.confusion import shown_person, summarise_confusion
from visavis.evaluation.rounds import score_rounds, summarise_rounds

from .conftest import COLOURS, FakeFaces, couple, paint, person
from .test_rounds import chats

CONFIG = EvaluateConfig(bootstrap_samples=300, same_person=0.5)


@pytest.mark.parametrize(
    ("to_asked", "to_other", "expected"),
    [
        (0.8, 0.1, "asked_person"),
        (0.1, 0.8, "other_person"),
        (0.4, 0.1, "neither"),
        (0.8, 0.9, "other_person"),
        (None, 0.8, "no_face"),
        (None, None, "no_face"),
    ],
)
def test_whom_a_close_up_shows(to_asked: float | None, to_other: float | None, expected: str) -> None:
    assert shown_person(to_asked, to_other, CONFIG) == expected


def test_mixing_up_two_people_is_told_from_losing_the_face(faces: FakeFaces) -> None:
    items = chats(40, lambda *_: True)
    items[:8] = [replace(item, generated=item.other_true) for item in items[:8]]
    items[8:12] = [replace(item, generated=paint(None)) for item in items[8:12]]
    strangers = [
        next(name for name in COLOURS if close(name, item.asked_true) < 0.5 > close(name, item.other_true))
        for item in items[12:16]
    ]
    items[12:16] = [
        replace(item, generated=person(name)) for item, name in zip(items[12:16], strangers, strict=True)
    ]
    rows = summarise_confusion(score_rounds(items, faces, CONFIG))
    assert {name: figure.value for name, figure in rows["shown"].items()} == {
        "asked_person": 0.8,
        "other_person": 0.1,
        "neither": 0.05,
        "no_face": 0.05,
    }
    assert rows["shown"]["neither"].clusters == 40
    for row in rows["confusion"].values():
        assert sum(figure.value for figure in row.values()) == pytest.approx(1)
        assert {figure.n for figure in row.values()} == {40}


def close(name: str, picture: object) -> float:
    from visavis.evaluation.faces import embed_faces, similarity

    return similarity(*embed_faces([person(name), picture], FakeFaces())) or 0.0  # type: ignore[list-item]


def test_a_model_that_always_paints_the_left_person_fills_one_column(faces: FakeFaces) -> None:
    items = chats(20, lambda _, __, fields, ___: fields["asked_side"] == "left")
    confusion = summarise_confusion(score_rounds(items, faces, CONFIG))["confusion"]
    assert confusion["asked_left"]["shown_left"].value == confusion["asked_right"]["shown_left"].value == 1


def test_no_close_up_is_null_and_not_an_error() -> None:
    rows = summarise_confusion([])
    assert rows["shown"]["neither"].to_dict() == {"value": None, "ci95": None, "n": 0}
    assert rows["confusion"]["asked_left"]["shown_right"].n == 0


def test_copy_paste_of_a_close_up_is_against_the_face_of_round_1(faces: FakeFaces) -> None:
    items = [
        replace(
            item,
            asked_true=person("olivia"),
            first_picture=couple("mia", "noah") if item.asked_side == "left" else couple("noah", "mia"),
        )
        for item in chats(4, lambda *_: True)
    ]
    for made, expected in (("mia", 1), ("olivia", -1)):
        scores = score_rounds([replace(item, generated=person(made)) for item in items], faces, CONFIG)
        figure = summarise_rounds(scores, [], CONFIG)["copy_paste"]
        assert (figure.value, figure.n) == (pytest.approx(expected, abs=0.01), 8)
    alone = score_rounds([replace(item, first_picture=person("mia")) for item in items], faces, CONFIG)
    assert summarise_rounds(alone, [], CONFIG)["copy_paste"].n == 0
