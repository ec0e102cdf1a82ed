"""The namer: rules that turn answers about two people into a caption with exactly two names.

All chance comes from the clip's id, so a clip gets the same names in every run and in any order of work.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np

from visavis.data.config import DescribeConfig
from visavis.files import sha256_bytes

Clause = Literal["looks", "side", "bare"]
SIDES = ("on the left", "on the right")

_ARTICLES = frozenset({"a", "an", "the", "some", "his", "her", "their"})
_PREPOSITIONS = frozenset(
    [
        "on",
        "in",
        "at",
        "by",
        "near",
        "under",
        "outside",
        "inside",
        "beside",
        "behind",
        "before",
        "along",
        "over",
        "above",
        "against",
        "around",
    ]
)
_CHATTER = re.compile(
    r"^(?:(?:and|also|with|wearing|wears|has|having|is|who|which|there|it|i see|looks like)\s+"
    r"|(?:this|the|a|an)\s+(?:person|man|woman|boy|girl|picture|image|photo)\b\s*"
    r"|(?:he|she|they|him|her|them)\b\s*)+",
    re.IGNORECASE,
)
_WORD = re.compile(r"^[a-z0-9][a-z0-9'-]*$")
_NAME_OR_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
# A phrase with one of these says where somebody is, or speaks of both people: it does not describe looks.
_NOT_LOOKS = frozenset(
    [
        "left",
        "right",
        "he",
        "she",
        "they",
        "him",
        "person",
        "people",
        "man",
        "woman",
        "friend",
        "friends",
        "unknown",
        "none",
    ]
)
# Names that are also words about looks; a sentence may begin with them.
_ALSO_WORDS = frozenset(
    ["Amber", "Autumn", "Hazel", "Iris", "Ivy", "Jade", "Olive", "Rose", "Ruby", "Violet", "Willow"]
)


@cache
def bundled_names() -> tuple[str, ...]:
    """Returns the bundled first names, single words, in alphabetical order."""
    return tuple((files("visavis.data.describing") / "names.txt").read_text(encoding="utf-8").split())


@dataclass(frozen=True)
class NamedCaption:
    """A caption with two names; index 0 is the left person.

    Attributes:
        text: The caption.
        names: Name of each person.
        used: The phrases that the caption says of each person.
        clauses: How each person is told: by looks, by side, or by the bare name.
        order: The people in the order in which the caption names them.
        style: Name of the caption style.
    """

    text: str
    names: tuple[str, str]
    used: tuple[tuple[str, ...], tuple[str, ...]]
    clauses: tuple[Clause, Clause]
    order: tuple[int, int]
    style: str


def looks_phrases(answer: str, names: Sequence[str], max_words: int) -> list[str]:
    """Takes an answer about somebody's looks apart into phrases, in the order of the answer.

    Args:
        answer: "Long red hair, round glasses and a blue cap."
        names: First names; one that stands in a phrase keeps its capital, so that it is found later.
        max_words: Longer phrases are left out.

    Returns:
        Clean lower-case phrases with the right article, none twice: ["long red hair", "round glasses", ...].
    """
    known = frozenset(names)
    phrases: list[str] = []
    for part in re.split(r"[,;.\n]|\band (?=an? )", answer):
        words = [_lower(word, known) for word in _CHATTER.sub("", part.strip()).split()]
        if not words or len(words) > max_words or _NOT_LOOKS.intersection(words):
            continue
        if not all(_WORD.match(word.lower()) for word in words):
            continue
        phrase = " ".join(with_article(words))
        if key_words(phrase) and phrase not in phrases:
            phrases.append(phrase)
    return phrases


def place_phrase(answer: str, max_words: int) -> str | None:
    """Returns an answer about the place as "on the beach"; None if it is not of that kind."""
    first = re.split(r"[,;.\n]", answer.strip())[0].lower()
    words = first.split()
    starts = [index for index, word in enumerate(words) if word in _PREPOSITIONS]
    if not starts:
        return None
    words = words[starts[0] :]
    if not 2 <= len(words) <= max_words or not all(_WORD.match(word) for word in words):
        return None
    if words[-1] in _ARTICLES | _PREPOSITIONS:
        return None
    return " ".join([words[0], *with_article(words[1:])])


def with_article(words: list[str]) -> list[str]:
    """Corrects a leading "a" or "an" by the first letter of what follows."""
    if len(words) > 1 and words[0] in ("a", "an"):
        return ["an" if words[1][0].lower() in "aeiou" else "a", *words[1:]]
    return words


def key_words(phrase: str) -> frozenset[str]:
    """Returns the words of a phrase that carry meaning."""
    return frozenset(phrase.lower().split()) - _ARTICLES


def distinct_phrases(own: Sequence[str], other: Sequence[str]) -> list[str]:
    """Returns the phrases that tell a person from the other one: nothing the other's phrases say as well."""
    others = [key_words(phrase) for phrase in other]
    return [phrase for phrase in own if not any(key_words(phrase) <= words for words in others)]


def names_in(text: str, names: Sequence[str]) -> list[str]:
    """Returns the names in a text, in order, each as often as it stands there."""
    known = frozenset(names)
    return [
        word.removesuffix("'s") for word in _NAME_OR_WORD.findall(text) if word.removesuffix("'s") in known
    ]


def clip_rng(clip_id: str, purpose: str, seed: int) -> np.random.Generator:
    """Returns a source of chance that depends on the clip, the purpose and the seed alone."""
    digest = sha256_bytes(f"{purpose}\0{seed}\0{clip_id}".encode("utf-8", "surrogateescape"))
    return np.random.default_rng(int(digest[:32], 16))


def name_people(
    clip_id: str, phrases: tuple[list[str], list[str]], place: str | None, config: DescribeConfig
) -> NamedCaption | str:
    """Names the people of a clip and writes its caption.

    Args:
        clip_id: Id of the clip; with the seed of the config the only source of chance.
        phrases: What is said of the left and of the right person.
        place: "on the beach", if known.
        config: Names, styles and limits.

    Returns:
        The caption, or the reason against it: `looks_not_distinct` or `names_not_two`.
    """
    rng = clip_rng(clip_id, "caption", config.seed)
    pool = config.names or bundled_names()
    one, two = (pool[int(index)] for index in rng.choice(len(pool), 2, replace=False))
    telling = tuple(distinct_phrases(phrases[i], phrases[1 - i]) for i in (0, 1))
    clauses, style = _clauses([bool(own) for own in telling], config, rng)
    if clauses is None:
        return "looks_not_distinct"
    order = (0, 1) if rng.random() < 0.5 else (1, 0)
    used = tuple(_chosen(telling[i], config.max_looks, rng) if clauses[i] == "looks" else () for i in (0, 1))
    told = [_told((one, two)[i], clauses[i], used[i], i) for i in order]
    opening = config.openings[int(rng.integers(len(config.openings)))]
    text = ", ".join(part for part in (opening, " and ".join(told), place) if part)
    if sorted(names_in(text, pool)) != sorted((one, two)):
        return "names_not_two"
    return NamedCaption(text, (one, two), (used[0], used[1]), clauses, order, style)


def _lower(word: str, names: frozenset[str]) -> str:
    bare = word.removesuffix("'s")
    return word if bare in names and bare not in _ALSO_WORDS else word.lower()


def _clauses(
    telling: list[bool], config: DescribeConfig, rng: np.random.Generator
) -> tuple[tuple[Clause, Clause] | None, str]:
    """Draws a style and what it means for each person; a style by looks gives way to what the looks allow."""
    weights = config.styles.model_dump()
    shares = np.array(list(weights.values()), np.float64)
    style = str(rng.choice(list(weights), p=shares / shares.sum()))
    lead = int(rng.integers(2))
    both_sides = bool(rng.random() < 2 / 3)
    if style == "sides":
        other: Clause = "side" if both_sides else "bare"
        return _for(lead, "side", other), style
    if not any(telling):
        return None, style
    if style == "both_looks" and not all(telling):
        style = "one_looks"
    if style == "both_looks":
        return ("looks", "looks"), style
    if not telling[lead]:
        lead = 1 - lead
    return _for(lead, "looks", "side" if style == "mixed" else "bare"), style


def _for(lead: int, own: Clause, other: Clause) -> tuple[Clause, Clause]:
    return (own, other) if lead == 0 else (other, own)


def _chosen(telling: Sequence[str], most: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draws phrases, the more distinctive (earlier) the likelier, and keeps their order."""
    count = min(len(telling), int(rng.integers(1, most + 1)))
    weights = 0.6 ** np.arange(len(telling))
    picked = rng.choice(len(telling), count, replace=False, p=weights / weights.sum())
    return tuple(telling[int(index)] for index in sorted(picked))


def _told(name: str, clause: Clause, used: Sequence[str], person: int) -> str:
    if clause == "looks":
        return f"{name} with {' and '.join(used)}"
    return f"{name} {SIDES[person]}" if clause == "side" else name
