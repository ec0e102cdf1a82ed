"""What a chat model's caption must obey: a strict schema, and rules that the schema cannot say.

A broken rule is told to the model in words, so each message says what is wrong with which word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visavis.data.config import DescribeConfig
from visavis.data.describing.namer import Pronoun, Spoken
from visavis.data.describing.naming import SIDES, bundled_names, distinct_phrases, names_in

_FENCED = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
# The chat template has signs of its own (<img>, [INST]); none may come in by a caption.
_PLAIN = re.compile(r"[\w ,.;:'’!?()&-]+")
_SENTENCE_END = re.compile(r"[.!?]\s*$")
_PRONOUNS: dict[str, Pronoun] = {
    **dict.fromkeys(("he", "him", "his", "himself"), "he"),
    **dict.fromkeys(("she", "her", "hers", "herself"), "she"),
    **dict.fromkeys(("they", "them", "their", "theirs", "themselves", "themself"), "they"),
}
_SPOKEN_AS: dict[str, Pronoun] = {
    **{word: kind for word, kind in _PRONOUNS.items() if kind != "they"},
    **dict.fromkeys(("man", "boy", "gentleman", "guy"), "he"),
    **dict.fromkeys(("woman", "girl", "lady"), "she"),
}


class PersonReply(BaseModel):
    """What the model decides about one person."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(description="One of the names to choose from.")
    pronoun: Literal["he", "she", "they", "none"] = Field(
        description="The pronoun that the caption uses of this person; none if it uses none."
    )
    evidence: Annotated[list[str], Field(max_length=4)] = Field(
        description="The phrases about this person that the caption says after the name, word for word."
    )


class NamerReply(BaseModel):
    """The whole reply; nothing else may stand in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    left: PersonReply = Field(description="The person on the left.")
    right: PersonReply = Field(description="The person on the right.")
    caption: str = Field(description="One line that holds both names, each once.")

    @property
    def people(self) -> tuple[PersonReply, PersonReply]:
        """The left and the right person."""
        return self.left, self.right


def parsed(text: str) -> NamerReply | list[str]:
    """Reads a reply: one JSON object of the schema, alone or in a code fence; else says what is wrong."""
    text = text.strip()
    if fenced := _FENCED.match(text):
        text = fenced.group(1)
    try:
        return NamerReply.model_validate_json(text)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        return [
            f"{'.'.join(str(step) for step in fault['loc']) or 'the reply'}: {fault['msg']}"
            for fault in faults
        ]


def telling_phrases(spoken: Spoken) -> tuple[list[str], list[str]]:
    """Returns the phrases about each person that do not fit the other one as well."""
    left, right = spoken.phrases
    return distinct_phrases(left, right), distinct_phrases(right, left)


def used_phrases(reply: NamerReply, spoken: Spoken) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the telling phrases that each person's evidence names, as the captioner's answer has them."""
    left, right = (
        tuple(phrase for phrase in telling if bare(phrase) in {bare(said) for said in person.evidence})
        for person, telling in zip(reply.people, telling_phrases(spoken), strict=True)
    )
    return left, right


def sides_told(reply: NamerReply) -> tuple[bool, bool]:
    """Returns whether the caption says on which side each person is."""
    left, right = (_says(after, side) for after, side in zip(_after_names(reply), SIDES, strict=True))
    return left, right


def name_order(reply: NamerReply) -> tuple[int, int]:
    """Returns the people in the order in which the caption names them."""
    left, right = (_place(person.name, reply.caption) for person in reply.people)
    return (0, 1) if left < right else (1, 0)


def violations(
    reply: NamerReply, spoken: Spoken, choices: Sequence[str], config: DescribeConfig
) -> list[str]:
    """Checks a reply against all rules.

    Args:
        reply: What the model wrote.
        spoken: What it was told.
        choices: The names it may use.
        config: The list of names and the limits.

    Returns:
        A sentence for each broken rule; empty if the caption may pass.
    """
    if faults := _name_faults(reply, spoken, choices, config):
        return faults  # without the right names there is nothing to bind the rest to
    faults = _form_faults(reply, spoken, config)
    return faults + _evidence_faults(reply, spoken) + _pronoun_faults(reply, spoken)


def bare(phrase: str) -> str:
    """Returns a phrase in lower case without its article."""
    return _ARTICLE.sub("", phrase.strip()).lower()


def _name_faults(
    reply: NamerReply, spoken: Spoken, choices: Sequence[str], config: DescribeConfig
) -> list[str]:
    names = [person.name for person in reply.people]
    if names[0] == names[1]:
        return [f"both people have the name {names[0]}; give them different names"]
    if wrong := [name for name in names if name not in choices]:
        return [f"{' and '.join(wrong)} cannot be chosen; choose from: {', '.join(choices)}"]
    found = names_in(reply.caption, config.names or bundled_names())
    faults = [
        f"the caption holds the name {name} {_times(found.count(name))}"
        for name in names
        if found.count(name) != 1
    ]
    return faults + [
        f"{name} is a third name in the caption" for name in dict.fromkeys(found) if name not in names
    ]


def _times(count: int) -> str:
    return "not at all; each name must stand in it once" if not count else f"{count} times; once is enough"


def _form_faults(reply: NamerReply, spoken: Spoken, config: DescribeConfig) -> list[str]:
    text = reply.caption
    if not _PLAIN.fullmatch(text):
        signs = sorted({sign for sign in text if not _PLAIN.fullmatch(sign)})
        return [f"the caption must be one line of plain words, without {' '.join(map(repr, signs))}"]
    faults = []
    if (count := len(text.split())) > config.max_caption_words:
        faults.append(f"the caption has {count} words; {config.max_caption_words} are the most")
    known = {word.lower() for answer in spoken.answers for word in _WORD.findall(answer)}
    known |= {person.name.lower() for person in reply.people}
    for match in _WORD.finditer(text):
        word = match.group().removesuffix("'s").removesuffix("’s")
        begins = match.start() == 0 or _SENTENCE_END.search(text[: match.start()])
        if word[0].isupper() and not begins and word.lower() not in known:
            faults.append(f"{word} looks like a name of its own; nothing but the two names may be named")
    return faults


def _after_names(reply: NamerReply) -> tuple[str, str]:
    """Returns what the caption says after each name, up to the other name."""
    places = [_place(person.name, reply.caption) for person in reply.people]
    stops = [
        place if place > own else len(reply.caption)
        for own, place in zip(places, reversed(places), strict=True)
    ]
    left, right = (
        reply.caption[place + len(person.name) : stop]
        for person, place, stop in zip(reply.people, places, stops, strict=True)
    )
    return left, right


def _place(name: str, text: str) -> int:
    match = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
    return match.start() if match else len(text)


def _says(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(bare(phrase))}(?!\w)", text.lower()) is not None


def _evidence_faults(reply: NamerReply, spoken: Spoken) -> list[str]:
    faults = []
    telling, after, told = telling_phrases(spoken), _after_names(reply), sides_told(reply)
    for i, person in enumerate(reply.people):
        allowed = {bare(phrase) for phrase in telling[i]}
        for phrase in person.evidence:
            if bare(phrase) not in allowed:
                faults.append(
                    f"{phrase!r} is no evidence for {person.name}; choose from: {'; '.join(telling[i]) or 'nothing'}"
                )
            elif not _says(after[i], phrase):
                faults.append(
                    f"the caption must say {phrase!r} after {person.name} and before the other name"
                )
        faults += [
            f"the caption says {phrase!r} of {person.name}, but it was said of the other person"
            for phrase in telling[1 - i]
            if _says(after[i], phrase)
        ]
        if _says(after[i], SIDES[1 - i]):
            faults.append(f"{person.name} is {SIDES[i]}, not {SIDES[1 - i]}")
    if not any(person.evidence for person in reply.people) and not any(told):
        faults.append(
            "nothing tells the two people apart; say a phrase of at least one of them, and list it as evidence"
        )
    return faults


def _pronoun_faults(reply: NamerReply, spoken: Spoken) -> list[str]:
    faults = []
    for person, answer in zip(reply.people, spoken.answers[:2], strict=True):
        heard = {_SPOKEN_AS[word.lower()] for word in _WORD.findall(answer) if word.lower() in _SPOKEN_AS}
        if len(heard) == 1 and person.pronoun in ("he", "she") and person.pronoun not in heard:
            faults.append(
                f"the pronoun of {person.name} is {person.pronoun}, but they were described as {heard.pop()}"
            )
    named: list[PersonReply] = []
    for match in _WORD.finditer(reply.caption):
        word = match.group()
        named += [person for person in reply.people if match.start() == _place(person.name, reply.caption)]
        kind = _PRONOUNS.get(word.lower())
        # "They" may be both people, unless just one of them has been named yet.
        if kind is None or (kind == "they" and len(named) != 1):
            continue
        meant = named or list(reply.people)
        if not any(person.pronoun == kind for person in meant):
            faults.append(
                f"{word!r} would be {meant[-1].name}, whose pronoun you gave as {meant[-1].pronoun}"
            )
    return faults
