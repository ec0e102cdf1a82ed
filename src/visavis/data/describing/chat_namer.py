"""A namer that asks a chat model, checks what it writes, and asks again with the reasons (paper, section 3.3.2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeAlias

from visavis.data.config import DescribeConfig
from visavis.data.describing.caption_rules import (
    NamerReply,
    name_order,
    parsed,
    sides_told,
    telling_phrases,
    used_phrases,
    violations,
)
from visavis.data.describing.name_choices import name_choices
from visavis.data.describing.namer import Naming, Pronoun, Spoken, Unnamed
from visavis.data.describing.naming import Clause, NamedCaption

Message: TypeAlias = dict[str, str]
"""`{"role": "user" | "assistant", "content": words}`, the two in turn; many chat templates know no other role."""

Write: TypeAlias = Callable[[Sequence[Message]], str]
"""Continues a chat that ends with a user's message; greedy, so that equal chats get equal answers."""

_STYLES: dict[frozenset[str], str] = {
    frozenset({"looks"}): "both_looks",
    frozenset({"looks", "bare"}): "one_looks",
    frozenset({"looks", "side"}): "mixed",
}
_TASK = """You give names to the two people of a picture and write its caption.
Rules:
- Choose two different names from the list, fitting what is said of each person.
- The caption is one line and holds each of the two names exactly once, and no other name.
- After a name, and before the other name, say one or two of that person's phrases word for word, and list them as
  evidence. If a person has no phrases, the evidence is an empty list.
- Say nothing of a person that is not said below. Every pronoun in the caption must fit the person's stated pronoun.
Answer with one JSON object of this schema and nothing else:
"""
_LONGEST_REPLY = 2000


class ChatNamer:
    """Lets a chat model name people and write captions, within rules.

    Args:
        write: The chat model.
        config: Names, limits and how often to ask again.
    """

    def __init__(self, write: Write, config: DescribeConfig) -> None:
        self.write, self.config = write, config
        self._task = _TASK + json.dumps(NamerReply.model_json_schema(), sort_keys=True)

    def __call__(self, spoken: Spoken) -> Naming | Unnamed:
        """Names the people of a clip.

        Returns:
            The caption; or `looks_not_distinct` if nothing that was said tells the people apart, or `namer_failed`
            with the broken rules of every attempt.
        """
        if not any(telling_phrases(spoken)):
            return Unnamed("looks_not_distinct")
        choices = name_choices(spoken.clip_id, self.config)
        chat = [{"role": "user", "content": f"{self._task}\n\n{_told(spoken, choices)}"}]
        attempts: list[list[str]] = []
        for _ in range(1 + self.config.namer_retries):
            text = self.write(chat)[:_LONGEST_REPLY]
            reply = parsed(text)
            faults = reply if isinstance(reply, list) else violations(reply, spoken, choices, self.config)
            if not faults and isinstance(reply, NamerReply):
                return _naming(reply, spoken)
            attempts.append(faults)
            wrong = "".join(f"\n- {fault}" for fault in faults)
            chat += [
                {"role": "assistant", "content": text},
                {
                    "role": "user",
                    "content": f"That is wrong:{wrong}\nAnswer again with the corrected JSON object only.",
                },
            ]
        return Unnamed("namer_failed", {"violations": attempts})


def _told(spoken: Spoken, choices: Sequence[str]) -> str:
    """Returns what the model is told of a clip."""
    lines = [f"Names to choose from: {', '.join(choices)}"]
    for side, answer, phrases in zip(
        ("left", "right"), spoken.answers, telling_phrases(spoken), strict=False
    ):
        lines.append(f"The person on the {side}: {answer}")
        lines.append(f"Phrases of the person on the {side}: {'; '.join(phrases) or 'none'}")
    lines.append(f"The place: {spoken.place or 'unknown'}")
    return "\n".join(lines)


def _naming(reply: NamerReply, spoken: Spoken) -> Naming:
    """Returns a reply that obeys the rules as a named caption."""
    used, sides = used_phrases(reply, spoken), sides_told(reply)
    left, right = (_clause(bool(used[i]), sides[i]) for i in (0, 1))
    names = (reply.left.name, reply.right.name)
    style = _STYLES.get(frozenset({left, right}), "sides")
    caption = NamedCaption(reply.caption, names, used, (left, right), name_order(reply), style)
    pronouns: list[Pronoun | None] = [
        None if person.pronoun == "none" else person.pronoun for person in reply.people
    ]
    return Naming(caption, (pronouns[0], pronouns[1]), sides)


def _clause(looks: bool, side: bool) -> Clause:
    if looks:
        return "looks"
    return "side" if side else "bare"
