import re
from collections import Counter

import numpy as np
import pytest

from visavis.data.config import DescribeConfig
from visavis.data.describing.naming import (
    NamedCaption,
    bundled_names,
    distinct_phrases,
    looks_phrases,
    name_people,
    names_in,
    place_phrase,
)

CONFIG = DescribeConfig()
ONE = ["long red hair", "round glasses", "a blue cap"]
TWO = ["short black hair", "a beard", "headphones"]


def captions(count: int = 2000, **changes) -> list[NamedCaption]:
    config = DescribeConfig(**changes)
    made = [name_people(f"clip{i}", (ONE, TWO), "on the beach", config) for i in range(count)]
    assert all(isinstance(caption, NamedCaption) for caption in made)
    return [caption for caption in made if isinstance(caption, NamedCaption)]


def test_there_are_enough_names_and_each_is_one_word() -> None:
    names = bundled_names()
    assert len(names) == len(set(names)) >= 200
    assert all(name.isalpha() and name[0].isupper() for name in names)


def test_the_storybook_knows_the_same_names() -> None:
    from visavis.storybook import captions

    assert set(captions.NAMES) == set(bundled_names())


@pytest.mark.parametrize(
    ("answer", "phrases"),
    [
        ("Long red hair, round glasses, a blue cap.", ["long red hair", "round glasses", "a blue cap"]),
        ("The person has long red hair and a olive cap", ["long red hair", "an olive cap"]),
        ("She is wearing a hat; with an blue scarf", ["a hat", "a blue scarf"]),
        ("a cap, a cap, A CAP", ["a cap"]),
        ("on the left, he, a beard", ["a beard"]),
        ("Hazel eyes", ["hazel eyes"]),
        ("looks like Oliver", ["Oliver"]),
        ("红头发, <script>, 12%, a beard", ["a beard"]),
        ("the a the", []),
        ("one two three four five six seven words here", []),
        ("", []),
        (" . , ; \n", []),
    ],
)
def test_answers_become_clean_phrases(answer: str, phrases: list[str]) -> None:
    assert looks_phrases(answer, bundled_names(), 6) == phrases


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("on the beach", "on the beach"),
        ("In the city at night.", "in the city at night"),
        ("They are in a old cafe, by the window", "in an old cafe"),
        ("a beach", None),
        ("in", None),
        ("at the", None),
        ("", None),
    ],
)
def test_places(answer: str, place: str | None) -> None:
    assert place_phrase(answer, 6) == place


def test_only_what_the_other_one_lacks_tells_them_apart() -> None:
    assert distinct_phrases(["red hair", "a cap", "glasses"], ["a red cap", "round glasses"]) == ["red hair"]
    assert distinct_phrases(["a cap"], ["the cap"]) == []


def test_every_caption_holds_exactly_its_two_names() -> None:
    for caption in captions():
        assert sorted(names_in(caption.text, bundled_names())) == sorted(caption.names)
        assert caption.names[0] != caption.names[1]


def test_the_order_in_the_caption_says_nothing_about_left_and_right() -> None:
    made = captions()
    assert np.mean([caption.order[0] == 0 for caption in made]) == pytest.approx(0.5, abs=0.04)
    for style in ("one_looks", "sides", "mixed"):
        chosen = [caption for caption in made if caption.style == style]
        # The position in the text, and who is told in which way, are independent of the side too.
        assert np.mean([caption.order[0] == 0 for caption in chosen]) == pytest.approx(0.5, abs=0.12)
        assert np.mean([caption.clauses[0] == "looks" for caption in chosen]) == pytest.approx(
            0.0 if style == "sides" else 0.5, abs=0.12
        )
    for caption in made:
        left, right = (re.search(rf"\b{name}\b", caption.text).start() for name in caption.names)
        assert (left < right) == (caption.order == (0, 1))


def test_styles_come_in_their_shares_and_always_tell_who_is_who() -> None:
    made = captions()
    shares = Counter(caption.style for caption in made)
    for style, share in (("both_looks", 0.45), ("one_looks", 0.30), ("sides", 0.15), ("mixed", 0.10)):
        assert shares[style] / len(made) == pytest.approx(share, abs=0.03)
    for caption in made:
        assert set(caption.clauses) != {"bare"}
        for person, phrases in enumerate(caption.used):
            assert bool(phrases) == (caption.clauses[person] == "looks")
            assert set(phrases) <= set((ONE, TWO)[person])
        for person, side in enumerate(("on the left", "on the right")):
            assert (f" {caption.names[person]} {side}" in caption.text) == (caption.clauses[person] == "side")


def test_looks_that_both_have_are_never_used() -> None:
    same = ["long red hair", "round glasses"]
    config = DescribeConfig(styles={"both_looks": 1, "one_looks": 0, "sides": 0, "mixed": 0})
    caption = name_people("a", ([*same, "a cap"], same), None, config)
    assert isinstance(caption, NamedCaption)
    assert caption.used == (("a cap",), ()) and caption.clauses == ("looks", "bare")
    assert name_people("a", (same, same), None, config) == "looks_not_distinct"


def test_a_name_in_an_answer_drops_the_clip() -> None:
    config = DescribeConfig(max_looks=1, styles={"both_looks": 1, "one_looks": 0, "sides": 0, "mixed": 0})
    assert name_people("a", (["Oliver"], ["a cap"]), None, config) == "names_not_two"


def test_names_depend_on_the_clip_alone() -> None:
    one = name_people("a", (ONE, TWO), "on the beach", CONFIG)
    assert one == name_people("a", (ONE, TWO), "on the beach", CONFIG)
    assert one != name_people("b", (ONE, TWO), "on the beach", CONFIG)
    assert one != name_people("a", (ONE, TWO), "on the beach", DescribeConfig(seed=1))


def test_wrong_settings_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="weight"):
        DescribeConfig(styles={"both_looks": 0, "one_looks": 0, "sides": 0, "mixed": 0})
    with pytest.raises(ValueError, match="names"):
        DescribeConfig(names=("Olivia",))
    with pytest.raises(ValueError, match="extra"):
        DescribeConfig(stile=1)  # type: ignore[call-arg]
