"""The chats of the page: each a tree on the server, found again by a secret that only its browser knows."""

from __future__ import annotations

import io
import json
import queue
import secrets
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from visavis.chat.conversation import ASSISTANT, USER, Conversation, Message, Picture
from visavis.chat.talker import Answer, Request, Wish, content_of
from visavis.serving.app import Service
from visavis.serving.engine import DeadlineError, Job

_SHOWN_SIDE = 384
_MOST_CHATS = 200
_SECRET_LENGTH = 32
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """An answer while it is made: the words so far, and the picture as it looks by then."""

    words: str
    picture: Picture | None = None


@dataclass
class PageChat:
    """One chat.

    Attributes:
        secret: Known to its browser alone; also the owner of what the model remembers of it.
        conversation: What was said.
        others: Pictures to choose from instead of the last one.
        job: The answer that is being made.
    """

    secret: str = field(default_factory=lambda: secrets.token_urlsafe(_SECRET_LENGTH * 3 // 4))
    conversation: Conversation = field(default_factory=Conversation)
    others: dict[int, tuple[Picture, ...]] = field(default_factory=dict)
    job: Job | None = None

    def say(self, text: str, pictures: list[Picture]) -> None:
        """Adds what the user says behind the head."""
        self.conversation.add(Message(USER, (*pictures, *([text] if text else []))))

    def answer(self, service: Service, wish: Wish) -> Iterator[Progress]:
        """Answers the last message; yields what there is of the answer while it is made.

        If it fails or is stopped, the message stays and can be answered again.
        """
        events: queue.Queue[Progress] = queue.Queue()
        words = ""

        def hear(so_far: str) -> bool:
            events.put(Progress(so_far))
            return True

        def watch(picture: Picture) -> bool:
            events.put(Progress("", picture))
            return True

        request = Request(self.conversation.messages(), wish, self.secret, hear, watch)
        self.job = job = service.submit(request)
        try:
            while not job.answer.done():
                if not job.wanted:
                    raise DeadlineError
                try:
                    seen = events.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                words = seen.words or words
                yield Progress(words, seen.picture)
            self.take(job.answer.result(), wish, job.version)
        finally:
            job.cancelled.set()
            self.job = None

    def take(self, answer: Answer, wish: Wish, version: str) -> None:
        """Adds an answer behind the head."""
        node = self.conversation.add(answer.message, {**asdict(wish), "version": version})
        if answer.others and answer.picture is not None:
            self.others[node.number] = (answer.picture, *answer.others)

    def stop(self) -> bool:
        """Stops the answer that is being made; tells whether there was one."""
        if self.job is None:
            return False
        self.job.cancelled.set()
        return True

    def candidates(self) -> tuple[Picture, ...]:
        """Returns the pictures that the last answer may be given instead."""
        head = self.conversation.head
        return () if head is None else self.others.get(head, ())

    def choose(self, number: int) -> None:
        """Gives the last answer another of its pictures, as a branch beside it."""
        pictures = self.candidates()
        node = self.conversation.path()[-1]
        self.conversation.go(node.parent)
        kept = [part for part in node.message.parts if isinstance(part, str)]
        facts = {**node.facts, "seed": node.facts["seed"] + number}
        chosen = self.conversation.add(Message(ASSISTANT, (*kept, pictures[number])), facts)
        self.others[chosen.number] = pictures

    def zipped(self, service: Service) -> bytes:
        """Returns the whole tree as a ZIP file: `chat.json`, and pictures with their credentials."""
        buffer = io.BytesIO()
        told: list[dict[str, Any]] = []
        with zipfile.ZipFile(buffer, "w") as archive:
            for node in self.conversation.nodes:
                names: list[str] = []
                for number, picture in enumerate(node.message.pictures):
                    generated = node.message.role == ASSISTANT
                    names.append(f"{node.number:03d}-{number}{'' if generated else '-shown'}.png")
                    content = _plain(picture)
                    if generated:
                        content = service.png(picture, "auto", str(node.facts.get("version", "")))
                    archive.writestr(names[-1], content)
                told.append(
                    {
                        "number": node.number,
                        "parent": node.parent,
                        "role": node.message.role,
                        "text": node.message.text,
                        "pictures": names,
                        "made": node.facts,
                    }
                )
            chat = {"model": service.model, "head": self.conversation.head, "messages": told}
            archive.writestr("chat.json", json.dumps(chat, indent=2))
        return buffer.getvalue()


class PageChats:
    """All chats of the page, the most recent ones; safe to use from several threads."""

    def __init__(self) -> None:
        self._chats: OrderedDict[str, PageChat] = OrderedDict()
        self._lock = threading.Lock()
        self._folder = Path(mkdtemp(prefix="visavis-page-"))

    @property
    def folder(self) -> Path:
        """Where the pictures that the page shows lie."""
        return self._folder

    def get(self, secret: str | None) -> PageChat:
        """Returns the chat of a secret; one that is not known, or not any more, begins anew under the same secret."""
        with self._lock:
            chat = self._chats.get(secret or "")
            if chat is None:
                chat = PageChat(secret) if secret and len(secret) == _SECRET_LENGTH else PageChat()
                self._chats[chat.secret] = chat
                while len(self._chats) > _MOST_CHATS:
                    self._chats.popitem(last=False)
            self._chats.move_to_end(chat.secret)
            return chat

    def shown(self, service: Service, picture: Picture, generated: bool) -> str:
        """Returns the file of a picture at the size in which it is shown; one that was generated says so."""
        path = self._folder / f"{content_of(picture)}{'-made' if generated else ''}.png"
        if not path.is_file():
            large = _enlarged(picture)
            path.write_bytes(
                service.png(large, "auto", service.engine.version) if generated else _plain(large)
            )
        return str(path)


def _plain(picture: Picture) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _enlarged(picture: Picture) -> Picture:
    """Scales a picture so that its longer side has the shown length."""
    from visavis.serving.pictures import scaled

    height, width = picture.shape[:2]
    factor = _SHOWN_SIDE / max(height, width)
    return scaled(picture, f"{max(1, round(width * factor))}x{max(1, round(height * factor))}")
