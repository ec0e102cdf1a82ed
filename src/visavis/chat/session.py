"""A conversation with the model: words in, words and pictures out, every way it took kept as a tree."""

from __future__ import annotations

from dataclasses import asdict, replace

from visavis.chat.conversation import ASSISTANT, USER, Conversation, Message, Picture
from visavis.chat.model import ChatModel
from visavis.chat.talker import Answer, Request, Talker, Wish
from visavis.errors import VisavisError

EXAMPLES = (
    "Generate an image: two friends, Julian with a red bob and Olivia with long black hair, on the beach",
    "Generate a close-up photo of Olivia",
    "Generate a close-up photo of Julian",
)
"""What somebody new may say, one after the other."""


class ChatSession:
    """Talks to one model; earlier pictures are read again from their pixels, as a user sees them.

    Args:
        model: The model, or a talker that other sessions share.
        seed: Of the pictures.
    """

    def __init__(self, model: ChatModel | Talker, seed: int = 0) -> None:
        self.talker = model if isinstance(model, Talker) else Talker(model)
        self.wish = Wish(seed=seed)
        self.conversation = Conversation()

    def say(self, text: str, pictures: tuple[Picture, ...] = (), wish: Wish | None = None) -> Answer:
        """Says something, with pictures if wanted, and returns the answer.

        Args:
            text: The words.
            pictures: `[H, W, 3]` each; they stand before the words.
            wish: How the answer is wanted, if otherwise than before.
        """
        before = self.conversation.head
        self.conversation.add(Message(USER, (*pictures, text)))
        try:
            return self._answer(wish or self.wish)
        except BaseException:
            self.conversation.nodes.pop()
            self.conversation.head = before
            raise

    def retry(self, seed: int | None = None) -> Answer:
        """Answers the last message once more, by default with the next seed; the answer before stays in the tree."""
        node = self.conversation.before_last(ASSISTANT)
        return self._answer(replace(self.wish, seed=node.facts["seed"] + 1 if seed is None else seed))

    def reseed(self, seed: int) -> None:
        """Gives the pictures from now on another seed."""
        self.wish = replace(self.wish, seed=seed)

    def undo(self) -> Message:
        """Goes back in front of the user's last message, and returns that message."""
        return self.conversation.before_last(USER).message

    def edit(self, number: int, text: str) -> Answer:
        """Says an earlier message of the user's in other words; what followed the first stays in the tree.

        Raises:
            VisavisError: If there is no such message of the user's.
        """
        before = self.conversation.head
        self.conversation.go(number)
        node = self.conversation.nodes[number]
        if node.message.role != USER:
            self.conversation.go(before)
            raise VisavisError(f"message {number} is the model's", fix="name one of the user's")
        self.conversation.go(node.parent)
        return self.say(text, tuple(node.message.pictures))

    def _answer(self, wish: Wish) -> Answer:
        answer = self.talker.answer([Request(self.conversation.messages(), wish)])[0]
        self.conversation.add(answer.message, asdict(wish))
        return answer
