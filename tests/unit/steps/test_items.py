"""What the evaluation is handed: chats and pictures that share people stand in one cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from visavis.chat.conversation import ASSISTANT, Message
from visavis.chat.talker import Answer, Request
from visavis.chat.template import assistant, user
from visavis.data.published.tokens import TokenStore
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.prompts import load_prompts
from visavis.steps import items
from visavis.steps.items import Painted, round_items, single_round_items


def store(samples: list[dict[str, Any]] | None = None) -> TokenStore:
    return TokenStore(
        np.zeros((3, 64, 4), np.float16),
        np.zeros((3, 1, 2, 2), np.float16),
        np.zeros((3, 8, 8, 3), np.uint8),
        samples or [],
    )


def chat(name: str, people: list[str], rows: list[int]) -> dict[str, Any]:
    tags = {
        "described": [True, False],
        "asked_side": ["left", "right"],
        "order_left_first": True,
        "side_told": [False, False],
        "other_described": [False, True],
    }
    return {
        "id": name,
        "set": "rounds",
        "caption": "two friends",
        "clip_id": f"clip-{name}",
        "people": people,
        "rows": rows,
        "tags": tags,
    }


class Echo:
    """Stands in for the talker: paints a picture as bright as the chat is long, and remembers what was said."""

    heard: ClassVar[list[list[Message]]] = []

    def __init__(self, model: Any) -> None:
        self.heard.clear()

    def answer(self, requests: list[Request]) -> list[Answer]:
        self.heard[:] = [list(request.messages) for request in requests]
        picture = [np.full((8, 8, 3), len(request.messages), np.uint8) for request in requests]
        return [
            Answer(Message(ASSISTANT, ("Here.", shown) if request.messages[-1].text != MUTE else ("No.",)))
            for request, shown in zip(requests, picture, strict=True)
        ]


MUTE = "Make a portrait of Ann"


def long_chat(name: str, people: list[str]) -> dict[str, Any]:
    turns = [user("two friends"), assistant("Done.", 0), user("Generate a close-up photo of Ann")]
    facts = {**chat(name, people, [0, 1, 2]), "turns": turns}
    return {**facts, "tags": {**facts["tags"], "asked_names": ["Ann", "Bob"]}}


def test_a_long_chat_asks_for_one_person_in_other_words_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "Talker", Echo)
    chats = [long_chat("a", ["ann", "bob"]), long_chat("b", ["bob", "cleo"])]
    config = EvaluateConfig(retention_rounds=8)
    made = items.retention_items(cast(Any, None), store(), chats, config)
    said = [[message.text for message in heard if message.role == "user"] for heard in Echo.heard]
    for words, item in zip(said, made, strict=True):
        assert words[:2] == ["two friends", "Generate a close-up photo of Ann"]
        assert len(set(words)) == 8 and all("Ann" in asked for asked in words[1:])
        assert item.asked_side == "left" and len(item.close_ups) == 7
        for place, close_up in enumerate(item.close_ups):
            assert (close_up is None) == (words[place + 1] == MUTE)
            assert close_up is None or close_up[0, 0, 0] == 3 + 2 * place
    assert said[0][2:] != said[1][2:] and sorted(said[0][2:]) == sorted(said[1][2:])
    assert made[0].cluster_id == made[1].cluster_id
    assert Echo.heard[0][1].pictures[0] is not None
    assert items.retention_items(cast(Any, None), store(), [], config) == []


def test_people_are_painted_with_a_prompt_of_each_group_in_turn() -> None:
    asked: list[dict[str, Any]] = []

    def paint(samples: list[dict[str, Any]]) -> Painted:
        asked.extend(samples)
        return Painted([[np.full((8, 8, 3), place, np.uint8)] for place in range(len(samples))], [])

    turns = [user("Paint: a person, in a room!", 0), assistant("Done: a person, in a room", 1)]
    samples = [
        {
            "id": f"pair-{n}",
            "people": [f"p{n}"],
            "rows": [n, 2],
            "caption": "a person, in a room",
            "turns": turns,
        }
        for n in range(2)
    ]
    made = items.prompted_items(paint, store(), samples, EvaluateConfig())
    groups = load_prompts("storybook").groups
    assert [(item.group, item.person_id) for item in made] == [(g, f"p{n}") for g in groups for n in range(2)]
    assert [item.prompt for item in made] == [groups[g][n] for g in groups for n in range(2)]
    assert [item.generated[0, 0, 0] for item in made] == list(range(6))
    for item, sample in zip(made, asked, strict=True):
        assert sample["turns"][0]["content"][0]["text"] == f"Paint: {item.prompt}!"
        assert sample["turns"][0]["content"][1] == turns[0]["content"][1]
        assert sample["turns"][1] == turns[1]
    assert len({item.item_id for item in made}) == 6


def test_another_system_is_told_all_that_was_said_and_shown_all_that_was_true() -> None:
    asked: list[tuple[str, list[int]]] = []

    class Other:
        def generate(self, prompt: str, images: Sequence[np.ndarray], seed: int = 0) -> np.ndarray | None:
            asked.append((prompt, [int(image[0, 0, 0]) for image in images]))
            return None if "Bob" in prompt else np.full((4, 4, 3), 9, np.uint8)

    pictures = np.stack([np.full((8, 8, 3), 10 * (row + 1), np.uint8) for row in range(3)])
    shown = TokenStore(np.zeros((3, 64, 4), np.float16), np.zeros((3, 1, 2, 2), np.float16), pictures, [])
    turns = [
        *(user("two friends"), assistant("Done.", 0)),
        *(user("a close-up of Ann"), assistant("Here.", 1), user("a close-up of Bob"), assistant("Here.", 2)),
    ]
    talk = {**chat("a", ["ann", "bob"], [0, 1, 2]), "turns": turns}
    painted = items.painted_by(Other(), shown, [talk])
    assert asked == [
        ("two friends", []),
        ("two friends\na close-up of Ann", [10]),
        ("two friends\na close-up of Ann\na close-up of Bob", [10, 20]),
    ]
    assert [int(picture[0, 0, 0]) for picture in painted.pictures[0]] == [9, 9, 0]
    closeups, firsts = round_items(shown, [talk], painted)
    assert closeups[0].generated_tokens is closeups[0].asked_tokens is None
    assert closeups[1].generated.shape == (8, 8, 3) and not closeups[1].generated.any()
    assert firsts[0].generated[0, 0, 0] == 9


def test_items_bring_what_the_data_set_says_of_their_person_in_this_clip() -> None:
    def one(name: str, of: str, person: str, clip: str, words: str) -> dict[str, Any]:
        return {"id": name, "set": of, "caption": words, "people": [person], "clip_id": clip, "rows": [0, 1]}

    said = [
        one("1", "reconstruct", "ann", "clip-a", "a close-up photo of a person with a red bun"),
        one("2", "pair", "ann", "clip-a", "a person with round glasses, in a room"),
        one("3", "pair", "ann", "clip-b", "a person with sunglasses"),
        one("4", "natural", "bob", "clip-a", "a crowd with blue hair"),
        one("5", "inpaint", "bob", "clip-a", ""),
    ]
    talk = chat("a", ["ann", "bob"], [0, 1, 2])
    picture, token = np.zeros((8, 8, 3), np.uint8), np.zeros((64, 4), np.float32)
    closeups, _ = round_items(store([*said, talk]), [talk], Painted([[picture] * 3], [[token] * 3]))
    words = "a close-up photo of a person with a red bun; a person with round glasses, in a room"
    assert [(item.person, item.description) for item in closeups] == [("ann", words), ("bob", "")]
    assert closeups[0].first_picture is not None
    alone = single_round_items(store(said), said[1:3], Painted([[picture]] * 2, [[token]] * 2))
    assert [item.description for item in alone] == [words, "a person with sunglasses"]


def test_chats_that_hang_together_through_a_third_are_one_cluster() -> None:
    people = {"a": ["ann", "bob"], "b": ["cleo", "dan"], "c": ["bob", "eve"], "d": ["eve", "fay"]}
    chats = [chat(name, who, [0, 1, 2]) for name, who in people.items()]
    picture, token = np.zeros((8, 8, 3), np.uint8), np.zeros((64, 4), np.float32)
    painted = Painted([[picture] * 3] * 4, [[token] * 3] * 4)
    closeups, firsts = round_items(store(), chats, painted)
    clusters = {item.chat_id: item.cluster for item in closeups}
    assert clusters["a"] == clusters["c"] == clusters["d"] != clusters["b"]
    assert {item.item_id: item.cluster_id for item in firsts} == clusters
