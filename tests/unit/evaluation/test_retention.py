from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.items import RetentionItem
from visavis.evaluation.retention import score_retention, slope, summarise_retention

from .conftest import FakeFaces, couple, paint, person

CONFIG = EvaluateConfig(bootstrap_samples=300, retention_rounds=5)


def long_chats(shown: list[str | None], count: int = 6) -> list[RetentionItem]:
    """Chats about Olivia, who stands left in one half of them and right in the other."""
    rng = np.random.default_rng(0)
    return [
        RetentionItem(
            f"chat-{index}",
            couple("olivia", "noah") if index % 2 else couple("noah", "olivia"),
            "left" if index % 2 else "right",
            tuple(person(name, rng) for name in shown),
        )
        for index in range(count)
    ]


def test_a_face_that_stays_keeps_its_figure_over_the_rounds(faces: FakeFaces) -> None:
    figures = summarise_retention(score_retention(long_chats(["olivia"] * 4), faces, CONFIG), CONFIG)
    assert [name for name in figures if name.startswith("round_")] == [f"round_{n}" for n in range(2, 6)]
    assert all(figures[f"round_{n}"].value > 0.9 for n in range(2, 6))
    assert figures["slope"].value == pytest.approx(0, abs=0.02)
    assert list(figures["to_first_close_up"]) == ["round_3", "round_4", "round_5"]
    assert figures["to_first_close_up"]["round_5"].value > 0.9
    assert figures["round_2"].clusters == 6
    assert figures["detection_rate"].n == 24


def test_a_face_that_is_lost_falls_and_one_of_somebody_else_stays(faces: FakeFaces) -> None:
    lost = summarise_retention(
        score_retention(long_chats(["olivia", "olivia", "mia", "julian"]), faces, CONFIG), CONFIG
    )
    assert lost["slope"].ci95[1] < -0.1
    assert lost["round_2"].value > 0.9 > 0.5 > lost["round_5"].value
    other = summarise_retention(score_retention(long_chats(["julian"] * 4), faces, CONFIG), CONFIG)
    assert other["round_5"].value < 0.5 < 0.9 < other["to_first_close_up"]["round_5"].value


def test_rounds_without_a_face_count_as_zero_or_are_skipped(faces: FakeFaces) -> None:
    items = [
        replace(item, close_ups=(item.close_ups[0], paint(None), None, item.close_ups[3]))
        for item in long_chats(["olivia"] * 4)
    ]
    zero = summarise_retention(score_retention(items, faces, CONFIG), CONFIG)
    assert zero["round_3"].value == zero["round_4"].value == 0
    assert zero["detection_rate"].value == 0.5
    skip = CONFIG.model_copy(update={"no_face": "skip"})
    skipped = summarise_retention(score_retention(items, faces, skip), skip)
    assert skipped["round_3"].n == 0
    assert skipped["round_5"].n == 6


def test_a_chat_whose_first_picture_shows_no_two_faces_is_left_out(faces: FakeFaces) -> None:
    items = long_chats(["olivia"] * 4)
    items[0] = replace(items[0], first_picture=person("olivia"))
    scores = score_retention(items, faces, CONFIG)
    assert [score.scorable for score in scores].count(False) == 1
    assert summarise_retention(scores, CONFIG)["round_2"].n == 5


def test_chats_that_share_people_are_resampled_together(faces: FakeFaces) -> None:
    items = [replace(item, cluster_id="all") for item in long_chats(["olivia"] * 4)]
    assert summarise_retention(score_retention(items, faces, CONFIG), CONFIG)["slope"].ci95 is None


def test_the_slope_is_the_change_per_round() -> None:
    assert slope((0.8, 0.6, 0.4), CONFIG) == pytest.approx(-0.2)
    assert slope((0.8, None, 0.4), CONFIG.model_copy(update={"no_face": "skip"})) == pytest.approx(-0.2)
    assert slope((0.8,), CONFIG) is None


def test_no_chats_leave_every_figure_there_without_a_value(faces: FakeFaces) -> None:
    figures = summarise_retention(score_retention([], faces, CONFIG), CONFIG)
    assert figures["round_5"].to_dict() == {"value": None, "ci95": None, "n": 0}
    assert figures["slope"].n == figures["to_first_close_up"]["round_3"].n == 0
