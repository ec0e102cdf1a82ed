"""Going back, another try, other words: the tree of a chat, and what an answer can be asked to be."""

from __future__ import annotations

import numpy as np
import pytest
from talking import SAYING, SIZE, Painting

from visavis.chat.conversation import USER, Message
from visavis.chat.session import ChatSession
from visavis.chat.talker import Request, Talker, Wish
from visavis.errors import VisavisError


def test_undo_retry_edit_and_return(model: Painting) -> None:
    session = ChatSession(model)
    first = session.say(SAYING)
    assert first.text == "Generated an image" and first.picture is not None
    session.say("Julian")
    head = session.conversation.head
    again = session.retry()
    assert again.picture is not None and session.conversation.head != head
    assert [node.facts.get("seed") for node in session.conversation.children(2)] == [0, 1]
    assert session.undo().text == "Julian"
    session.say("Olivia")
    assert [node.message.text for node in session.conversation.children(1)] == ["Julian", "Olivia"]
    session.edit(0, "Julian left")
    assert [node.message.text for node in session.conversation.children(None)] == [SAYING, "Julian left"]
    session.conversation.go(head)
    assert [m.text for m in session.conversation.messages() if m.role == USER] == [SAYING, "Julian"]
    outline = session.conversation.outline()
    assert outline.count("\n") == len(session.conversation.nodes) - 1 and f"● {head} " in outline


def test_a_way_taken_again_gives_the_same(model: Painting) -> None:
    session = ChatSession(model)
    session.say(SAYING)
    before = session.say("Julian")
    session.say("Olivia")
    session.conversation.go(1)
    again = session.say("Julian")
    np.testing.assert_allclose(again.tokens[0], before.tokens[0], atol=1e-5)


def test_what_fails_leaves_no_trace(model: Painting) -> None:
    session = ChatSession(model)
    with pytest.raises(VisavisError, match="no message of the user"):
        session.undo()
    session.say(SAYING)
    with pytest.raises(VisavisError, match="the model reads"):
        session.say(" ".join([SAYING] * 600))
    assert len(session.conversation.nodes) == 2 and session.conversation.head == 1
    with pytest.raises(VisavisError, match="there is no message 9"):
        session.conversation.go(9)


def test_candidates_are_the_pictures_of_the_seeds_that_follow(model: Painting) -> None:
    talker = Talker(model)
    messages = [Message(USER, (SAYING,))]
    answer = talker.answer([Request(messages, Wish(seed=3, candidates=3))])[0]
    singles = [talker.answer([Request(messages, Wish(seed=seed))])[0].picture for seed in (3, 4, 5)]
    for picture, single in zip([answer.picture, *answer.others], singles, strict=True):
        np.testing.assert_array_equal(picture, single)


def test_identity_weighs_what_was_shown(model: Painting) -> None:
    talker = Talker(model)
    shown = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)

    def tokens(picture: np.ndarray, identity: float) -> np.ndarray:
        request = Request([Message(USER, (picture, "Julian"))], Wish(identity=identity))
        return talker.answer([request])[0].tokens[0]

    blind, plain, more = (tokens(shown, identity) for identity in (0.0, 1.0, 1.5))
    np.testing.assert_allclose(more, blind + 1.5 * (plain - blind), atol=1e-4)
    np.testing.assert_allclose(tokens(255 - shown, 0.0), blind, atol=1e-5)
    assert np.abs(plain - blind).max() > 1e-3


def test_listeners_hear_words_and_can_stop(model: Painting) -> None:
    heard: list[str] = []
    seen: list[np.ndarray] = []
    talker = Talker(model)
    messages = [Message(USER, (SAYING,))]

    def hear(words: str) -> bool:
        heard.append(words)
        return len(heard) < 2

    stopped = talker.answer([Request(messages, hear=hear)])[0]
    assert heard == ["Generated", "Generated an"] and stopped.picture is None
    talker.answer([Request(messages, watch=lambda picture: seen.append(picture) is None and len(seen) < 2)])
    assert len(seen) == 2


def test_an_answer_can_hold_several_pictures(model: Painting, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Talker(model).answer([Request([Message(USER, (SAYING,))], Wish(pictures=2))])[0]
    assert [type(part) for part in answer.message.parts] == [str, np.ndarray, str, np.ndarray]


def test_a_temperature_draws_words_by_seed(model: Painting) -> None:
    talker, messages = Talker(model), [Message(USER, (SAYING,))]
    said = [talker.answer([Request(messages, Wish(seed=1, temperature=1e6))])[0].text for _ in range(2)]
    other = talker.answer([Request(messages, Wish(seed=2, temperature=1e6))])[0].text
    assert said[0] == said[1] != other
