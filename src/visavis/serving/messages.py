"""Turns the messages of a request into a chat that the model reads."""

from __future__ import annotations

from collections.abc import Sequence

from visavis.chat.conversation import ASSISTANT, USER, Message, Part
from visavis.chat.template import Template
from visavis.errors import VisavisError
from visavis.serving.pictures import from_url
from visavis.serving.schemas import MOST_PICTURES, MOST_TEXT, ChatMessage, TextPart


def messages_of(given: Sequence[ChatMessage]) -> list[Message]:
    """Returns a chat of turns that alternate and end with the user's.

    What one side says in several messages becomes one; instructions of the system stand before what the user says next,
    for the model knows no third side.

    Raises:
        VisavisError: If there is nothing to answer, or too much of it, or a picture cannot be read.
    """
    words = sum(_words(message) for message in given)
    if words > MOST_TEXT:
        raise VisavisError(
            f"messages have {words} characters", fix=f"send at most {MOST_TEXT}, pictures not counted"
        )
    shown = sum(len(_urls(message)) for message in given)
    if shown > MOST_PICTURES:
        raise VisavisError(f"messages hold {shown} pictures", fix=f"send at most {MOST_PICTURES}")
    chat: list[Message] = []
    for message in given:
        parts = _parts(message)
        role = ASSISTANT if message.role == "assistant" else USER
        if not parts:
            continue
        if chat and chat[-1].role == role:
            parts = [*chat.pop().parts, *parts]
        chat.append(Message(role, tuple(parts)))
    if not chat or chat[0].role != USER or chat[-1].role != USER:
        raise VisavisError(
            "messages must begin and end with what a user says",
            fix="put a message of role user, with text or a picture, first and last",
        )
    return chat


def said_by_user(words: str) -> Message:
    """Returns a message of words alone."""
    return Message(USER, (words,))


def tokens_of(messages: Sequence[Message], template: Template) -> int:
    """Returns how many tokens the words and pictures of some messages have."""
    return sum(
        len(template.plain_ids(part)) if isinstance(part, str) else len(template.queries)
        for message in messages
        for part in message.parts
    )


def _parts(message: ChatMessage) -> list[Part]:
    content = message.content
    parts: list[Part] = []
    if isinstance(content, str):
        parts = [content] if content.strip() else []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, TextPart):
            parts += [part.text] if part.text.strip() else []
        else:
            parts.append(from_url(part.image_url.url))
    return parts + [from_url(image.image_url.url) for image in message.images or ()]


def _words(message: ChatMessage) -> int:
    content = message.content
    if isinstance(content, str):
        return len(content)
    return sum(len(part.text) for part in content or () if isinstance(part, TextPart))


def _urls(message: ChatMessage) -> list[str]:
    content = message.content if isinstance(message.content, list) else []
    inside = [part.image_url.url for part in content if not isinstance(part, TextPart)]
    return inside + [image.image_url.url for image in message.images or ()]
