from __future__ import annotations

import pytest

from visavis.evaluation.attributes import UNTOLD, attributes_of
from visavis.storybook.captions import LOOKS_VOCABULARY


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a person with a red bun and round glasses", {"hair_colour": "red", "hair_style": "bun", "glasses": "round"}),
        ("long black hair, a blue cap", {"hair_colour": "black", "hair_style": "long", "hat": "cap"}),
        ("a person with a red cap, on the beach", {"hat": "cap"}),
        ("a black beanie and a white bob", {"hair_colour": "white", "hair_style": "bob", "hat": "beanie"}),
        ("a bald head, sunglasses; a beard", {
            "hair_style": "bald", "facial_hair": "beard", "glasses": "sunglasses",
        }),
        ("An elderly woman with grey curly hair", {
            "hair_colour": "gray", "hair_style": "curly", "age": "old", "gender_word": "woman",
        }),
        ("a young man with spectacles and a mustache", {
            "age": "young", "gender_word": "man", "glasses": "other", "facial_hair": "moustache",
        }),
        ("a person in the city at night", {}),
    ],
)  # fmt: skip
def test_words_tell_attributes(words: str, expected: dict[str, str]) -> None:
    told = {name: value for name, value in attributes_of(words).items() if value != UNTOLD}
    assert told == expected


def test_what_is_not_told_is_untold_and_nothing_is_known_of_nobody() -> None:
    assert attributes_of("a person")["glasses"] == UNTOLD
    assert attributes_of("") == {}


def test_every_look_of_the_storybook_tells_something_and_nothing_of_age() -> None:
    for looks in LOOKS_VOCABULARY:
        told = {name for name, value in attributes_of(looks).items() if value != UNTOLD}
        assert told and told <= {"hair_colour", "hair_style", "glasses", "facial_hair", "hat"}, looks
