"""Capitals for a model that has none."""

from __future__ import annotations

import pytest

from visavis.chat.casing import capitals_in, is_uncased, with_capitals
from visavis.chat.conversation import USER, Message
from visavis.chat.model import ChatModel
from visavis.chat.talker import Request, Talker

ASKED = ("Generate an image: two friends, Julian with red hair and Mary-Ann, in Paris", "Now Olivia")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("i have generated an image.", "I have generated an image."),
        ("on the left mary-ann. on the right julian", "On the left Mary-Ann. On the right Julian"),
        ("generate an image: olivia, in paris", "Generate an image: Olivia, in Paris"),
        ("an image : olivia ; a hat", "An image: Olivia; a hat"),
        ("nobody named bella", "Nobody named bella"),
        ("", ""),
    ],
)
def test_names_are_written_as_the_chat_wrote_them(said: str, shown: str) -> None:
    assert with_capitals(said, capitals_in(ASKED)) == shown
    assert with_capitals(shown, capitals_in(ASKED)) == shown


def test_what_is_heard_on_the_way_is_written_as_the_answer(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_uncased(model.tokenizer)
    heard: list[str] = []
    request = Request(
        [Message(USER, ("two friends, Julian and Olivia",))], hear=lambda t: not heard.append(t)
    )
    answer = Talker(model).answer([request])[0]
    assert heard and heard[-1] == answer.text
    assert all(text[:1] == text[:1].upper() for text in heard)
