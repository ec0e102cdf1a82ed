"""A chat as a tree of messages: go back, say something else, and both ways on stay there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visavis.errors import VisavisError

Picture = NDArray[np.uint8]
Part = str | Picture
USER, ASSISTANT = "user", "assistant"
_INDENT = "\u2003"  # an em space, which HTML keeps


@dataclass(frozen=True, eq=False)
class Message:
    """What one side says at once.

    Attributes:
        role: `user` or `assistant`.
        parts: Words and pictures `[H, W, 3]` in their order.
    """

    role: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The words alone."""
        return " ".join(part for part in self.parts if isinstance(part, str))

    @property
    def pictures(self) -> list[Picture]:
        """The pictures alone."""
        return [part for part in self.parts if not isinstance(part, str)]


@dataclass(frozen=True, eq=False)
class Node:
    """A message in its place.

    Attributes:
        number: Of the node in its conversation.
        parent: Number of the node before it; None at a start.
        message: What is said.
        facts: How it came about, such as the seed.
    """

    number: int
    parent: int | None
    message: Message
    facts: dict[str, Any]


class Conversation:
    """A tree of messages with one place, the head, that the chat goes on from."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.head: int | None = None

    def add(self, message: Message, facts: dict[str, Any] | None = None) -> Node:
        """Says something behind the head, which moves there."""
        node = Node(len(self.nodes), self.head, message, facts or {})
        self.nodes.append(node)
        self.head = node.number
        return node

    def path(self, to: int | None = None) -> list[Node]:
        """Returns the nodes from the start to one, by default to the head."""
        number, found = self.head if to is None else to, list[Node]()
        while number is not None:
            found.append(self.nodes[number])
            number = self.nodes[number].parent
        return found[::-1]

    def messages(self) -> list[Message]:
        """Returns what is said from the start to the head."""
        return [node.message for node in self.path()]

    def children(self, number: int | None) -> list[Node]:
        """Returns what was said behind a node, in the order in which it was said; None: the starts."""
        return [node for node in self.nodes if node.parent == number]

    def go(self, number: int | None) -> None:
        """Moves the head to a node; None: before the start.

        Raises:
            VisavisError: If there is no such node.
        """
        if number is not None and not 0 <= number < len(self.nodes):
            raise VisavisError(f"there is no message {number}", fix=f"name one of 0 to {len(self.nodes) - 1}")
        self.head = number

    def before_last(self, role: str) -> Node:
        """Moves the head in front of the last message of a side, and returns that message.

        Raises:
            VisavisError: If that side has said nothing.
        """
        for node in reversed(self.path()):
            if node.message.role == role:
                self.head = node.parent
                return node
        raise VisavisError(f"there is no message of the {role} yet", fix="say something first")

    def lines(self) -> list[tuple[int, str]]:
        """Returns each node with a line that tells it, indented where the chat branches, in the order of the tree."""
        found: list[tuple[int, str]] = []

        def walk(parent: int | None, depth: int) -> None:
            children = self.children(parent)
            for node in children:
                deeper = depth + (len(children) > 1)
                found.append((node.number, _INDENT * deeper + _told(node.message)))
                walk(node.number, deeper)

        walk(None, 0)
        return found

    def outline(self) -> str:
        """Returns the tree as lines with numbers; the way to the head is marked."""
        marked = {node.number for node in self.path()}
        signs = {number: "•" if number in marked else "○" for number, _ in self.lines()}
        return "\n".join(
            f"{'●' if number == self.head else signs[number]} {number} {line}"
            for number, line in self.lines()
        )


def _told(message: Message) -> str:
    words = message.text if len(message.text) <= 60 else f"{message.text[:59]}…"
    pictures = len(message.pictures)
    shown = f" [{pictures} picture{'s' * (pictures > 1)}]" if pictures else ""
    return f"{'You' if message.role == USER else 'Model'}: {words}{shown}"
