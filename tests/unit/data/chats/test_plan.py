"""The reply that says what is painted."""

from __future__ import annotations

import pytest

from visavis.data.chats.plan import plan
from visavis.data.config import Prompts

SEEN = (["a crown", "long red hair", "round glasses", "a blue suit"], ["a bald head"])


def test_a_plan_repeats_the_caption_in_its_order_and_adds_what_strikes_and_the_clothes() -> None:
    used = (["round glasses"], [])
    assert plan(Prompts(), SEEN, used, (1, 0)) == (
        "I have generated an image: on the right a bald head,"
        " on the left round glasses and a crown and a blue suit."
    )
    assert plan(Prompts(plan="{people}"), SEEN, (["a crown"], ["a bald head"]), (0, 1)) == (
        "on the left a crown and a blue suit, on the right a bald head"
    )


def test_nothing_is_said_of_somebody_of_whom_nothing_was_seen() -> None:
    assert plan(Prompts(plan="{people}"), ([], ["a beard"]), ([], []), (0, 1)) == (
        "on the left, on the right a beard"
    )


def test_a_plan_without_a_place_for_the_people_is_refused() -> None:
    with pytest.raises(ValueError, match=r"plan must hold \{people\} once"):
        Prompts(plan="I have generated an image.")
