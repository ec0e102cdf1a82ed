"""What the pack's MLLM is taught: requests that fit their answers, in one form and in varied ones."""

from __future__ import annotations

import numpy as np
import pytest

from visavis.chat.template import RESPONSE
from visavis.pretrain.mllm import IMAGE_TOKENS, Curriculum, all_texts
from visavis.pretrain.skills import CROPS, WHERE, Cast, Member, Sample, picture_sample
from visavis.pretrain.vocabulary import UNKNOWN, build_tokenizer

NAMES = ("Olivia", "Julian")
CAST = Cast(
    5,
    (
        Member(("long red hair", "round glasses"), "left", 11),
        Member(("a bald head", "a beard"), "right", 12),
    ),
    "on the beach",
)


def drawn(skill: str, varied: bool, count: int = 60) -> list[Sample]:
    return [
        picture_sample(skill, CAST, NAMES, np.random.default_rng(seed), 2.0, varied) for seed in range(count)
    ]


def words_of(turn: dict) -> str:
    return " ".join(part["text"] for part in turn["content"] if part["type"] == "text")


def crops_of(sample: Sample) -> list[tuple[str, int]]:
    """Returns each request for a crop with the row of its answer."""
    return [
        (words_of(asked), sample.pictures[part["image"]])
        for asked, answered in zip(sample.turns[::2], sample.turns[1::2], strict=True)
        for part in answered["content"]
        if part["type"] == "image"
    ]


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("skill", ["side", "crop", "name"])
def test_both_faces_are_asked_for_once_and_answered_by_the_right_row(skill: str, varied: bool) -> None:
    for sample in drawn(skill, varied):
        crops = crops_of(sample)
        assert sorted(row for _, row in crops) == [11, 12] and sample.pictures[0] == 5
        assert {"type": "image", "image": 0} in sample.turns[0]["content"]
        for request, row in crops:
            person = row - 11
            # The first turn may hold the caption too: what is asked for stands at its end.
            told = (NAMES[person], CAST.people[person].side, *CAST.people[person].looks)
            assert request.rstrip(".").endswith(told)


def test_one_form_of_request_is_one_form() -> None:
    for sample in drawn("name", varied=False):
        assert not sample.reread
        assert all(CROPS[0].split("{")[0] in request for request, _ in crops_of(sample))
        assert RESPONSE not in "".join(words_of(turn) for turn in sample.turns)


def test_varied_forms_differ_in_words_order_and_history() -> None:
    samples = drawn("name", varied=True)
    texts = [" ".join(words_of(turn) for turn in sample.turns) for sample in samples]
    for form in (*(crop.split("{")[0] for crop in CROPS), RESPONSE, WHERE):
        assert 0 < sum(form in text for text in texts) < len(texts)
    for choice in (
        [sample.reread for sample in samples],
        [sample.turns[0]["content"][0]["type"] for sample in samples],
    ):
        assert len(set(choice)) == 2


@pytest.mark.parametrize("names", [NAMES, ("Jack", "Jackson")])
def test_most_replies_to_a_picture_of_two_say_who_stands_where(names: tuple[str, str]) -> None:
    samples = [picture_sample("paint", CAST, names, np.random.default_rng(seed), 2.0) for seed in range(60)]
    plain = 0
    for sample in samples:
        request, reply = (words_of(turn) for turn in sample.turns)
        if reply == RESPONSE:
            plain += 1
            continue
        told = request.replace(",", "").split()
        left_first = told.index(names[0]) < told.index(names[1])
        assert left_first == (reply.index("on the left") < reply.index("on the right"))
        for person, side in enumerate(("on the left ", "on the right ")):
            clause = reply.rstrip(".").split(side)[1].split(",")[0]
            assert set(clause.split(" and ")) == set(CAST.people[person].looks)
    assert 0.05 < plain / len(samples) < 0.4
    alone = Cast(5, CAST.people[:1], "on the beach")
    for seed in range(10):
        sample = picture_sample("paint", alone, names, np.random.default_rng(seed), 2.0)
        assert words_of(sample.turns[1]) == RESPONSE


def test_shares_of_a_curriculum_leave_the_rest_in_proportion() -> None:
    mix = Curriculum(first=0, binding=0, refine=0, shares={"paint": 0.6, "describe": 0.1}).mix(0)
    plain = Curriculum(first=0, binding=0, refine=0).mix(0)
    assert sum(mix.values()) == pytest.approx(1) and list(mix) == list(plain)
    assert (mix["paint"], mix["describe"]) == (0.6, 0.1)
    assert mix["name"] / mix["crop"] == pytest.approx(plain["name"] / plain["crop"])
    assert Curriculum(first=1, shares={"paint": 0.6}).mix(0) == {"side": 1.0}


def test_every_word_is_in_the_vocabulary() -> None:
    tokenizer = build_tokenizer(all_texts(), IMAGE_TOKENS)
    for skill in ("who", "name", "crop", "side", "describe", "place", "paint"):
        for sample in drawn(skill, varied=True, count=10):
            for turn in sample.turns:
                assert UNKNOWN not in tokenizer.tokenize(words_of(turn))
