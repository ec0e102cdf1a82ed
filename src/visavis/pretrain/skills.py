"""What the pretrained model can do before visavis tunes it: the skills that SEED-X brings along, in small.

Text-to-image, describing a person, naming a place, who is who by name, where somebody stands, and crops. The chats
that visavis teaches (a close-up of somebody by name after a generated picture) are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis.chat.template import RESPONSE, Turn, assistant, user

SIDES = ("left", "right")
DESCRIBE = "Describe this person."
WHERE = "Where is this?"
CROP = "Show the face of {target}."
PHOTO = "Show a photo of {target}."
HAS = "What has {who}?"
PLACE = "Where is {who}?"
_QUESTIONS: dict[str, tuple[str, ...]] = {
    "who": ("side", "look", "told", "name"),
    "crop": ("look",),
    "name": ("name",),
}
GENERATE = "Generate an image: {caption}"
OPENINGS = ("two friends, ", "a photo of ", "a picture of ", "")
HAIR_WORDS = ("hair", "head", "bob", "bun", "mohawk")
SKILLS = ("text", "paint", "describe", "place", "who", "crop", "name")


@dataclass(frozen=True)
class Member:
    """One person of a picture, in words.

    Attributes:
        looks: Phrases, the most telling first ("a crown", "long red hair", "round glasses").
        side: `left` or `right` in a picture of two, empty otherwise.
        face: Row of the masked close-up in the picture set.
        portrait: Row of the square cut out around the person.
    """

    looks: tuple[str, ...]
    side: str = ""
    face: int = -1
    portrait: int = -1

    @property
    def hair(self) -> str:
        """The phrase for the hair or the bald head; every person has one."""
        return next(phrase for phrase in self.looks if is_hair(phrase))


@dataclass(frozen=True)
class Cast:
    """A picture in words: its row, the people in it (left to right) and the place."""

    picture: int
    people: tuple[Member, ...]
    place: str


@dataclass(frozen=True)
class Sample:
    """Turns whose picture numbers index `pictures` (rows of the picture set); `weights` for generated ones."""

    turns: list[Turn]
    pictures: list[int]
    weights: list[float]


def is_hair(phrase: str) -> bool:
    """Whether a looks phrase is about the hair."""
    return phrase.split()[-1] in HAIR_WORDS


def _phrases(member: Member, others: Sequence[Member], rng: np.random.Generator, count: int) -> list[str]:
    """Draws up to `count` phrases, those that tell the person from the others first."""
    shared = {phrase for other in others for phrase in other.looks}
    own = [phrase for phrase in member.looks if phrase not in shared] or list(member.looks)
    picked = rng.permutation(len(own))[:count]
    return [own[int(i)] for i in sorted(picked)]


def caption(cast: Cast, names: Sequence[str], rng: np.random.Generator) -> tuple[str, list[list[str]]]:
    """Writes a caption with one clause per named person, in an order that says nothing about left and right.

    Returns:
        The text, and for each person the phrases that it mentions.
    """
    people = cast.people
    styles = [str(s) for s in rng.choice(["looks", "side", "bare"], size=len(people), p=[0.66, 0.2, 0.14])]
    if all(style == "bare" for style in styles) or len(people) > 2:
        styles = ["looks"] * len(people)
    mentioned: list[list[str]] = [[] for _ in people]
    clauses = []
    for index in rng.permutation(len(people)):
        member, name = people[index], names[index]
        if styles[index] == "looks":
            others = [m for i, m in enumerate(people) if i != index]
            mentioned[index] = _phrases(member, others, rng, int(rng.integers(1, 3)))
            clauses.append(f"{name} with {' and '.join(mentioned[index])}")
        elif styles[index] == "side" and member.side:
            clauses.append(f"{name} on the {member.side}")
        else:
            clauses.append(name)
    opening = OPENINGS[int(rng.integers(len(OPENINGS)))]
    place = f", {cast.place}" if cast.place and rng.random() < 0.9 else ""
    return opening + " and ".join(clauses) + place, mentioned


def text_sample(people: Sequence[Member], names: Sequence[str], rng: np.random.Generator) -> Sample:
    """Who is who in words alone: each of several people has one phrase, and every one is asked for.

    With five people a guess is wrong four times in five, which teaches binding much sooner than two people do.
    """
    told = [member.looks[int(rng.integers(len(member.looks)))] for member in people]
    kept = [i for i, phrase in enumerate(told) if told.index(phrase) == i]
    text = " and ".join(f"{names[i]} with {told[i]}" for i in rng.permutation(kept))
    turns: list[Turn] = []
    for index in rng.permutation(kept):
        turns += [
            user(f"{text}. " if not turns else "", HAS.format(who=names[index])),
            assistant(told[index]),
        ]
    return Sample(turns, [], [])


def picture_sample(
    skill: str, cast: Cast, names: Sequence[str], rng: np.random.Generator, crop_weight: float
) -> Sample:
    """Builds one sample of a skill for a picture of two people (paint, describe and place: of any number).

    `who` asks in words; `crop` also wants both people, by side or by looks, `name` both by name: the masked face, or
    the square around the person.

    Args:
        skill: One of `SKILLS` but `text`.
        cast: The picture.
        names: A name for each person.
        rng: The only source of chance.
        crop_weight: Regression weight of a crop (crops vary less than pictures).
    """
    people = cast.people
    if skill == "paint":
        text = caption(cast, names, rng)[0] if people else cast.place
        return Sample([user(GENERATE.format(caption=text)), assistant(RESPONSE, 0)], [cast.picture], [1.0])
    if skill == "describe":
        return Sample([user(0, DESCRIBE), assistant(", ".join(people[0].looks))], [cast.picture], [1.0])
    if skill == "place":
        return Sample([user(0, WHERE), assistant(cast.place)], [cast.picture], [1.0])
    text, mentioned = caption(cast, names, rng)
    turns = _questions(cast, names, mentioned, rng, _QUESTIONS[skill])
    pictures, weights = [cast.picture], [1.0]
    for index in rng.permutation(len(people)) if skill != "who" else ():
        member, others = people[index], [m for i, m in enumerate(people) if i != index]
        kind = "name" if skill == "name" else ("side", "look")[int(rng.integers(2))]
        target = {
            "name": names[index],
            "side": f"the person on the {member.side}",
            "look": f"the person with {_phrases(member, others, rng, 1)[0]}",
        }[kind]
        masked = member.portrait < 0 or rng.random() < 0.5
        request = CROP if masked else PHOTO
        turns += [user(request.format(target=target)), assistant(len(pictures))]
        pictures.append(member.face if masked else member.portrait)
        weights.append(crop_weight)
    lead = [{"type": "image", "image": 0}]
    if skill != "crop":
        lead = [{"type": "text", "text": f"{text}."}, *lead]
    turns[0]["content"] = [*lead, *turns[0]["content"]]
    return Sample(turns, pictures, weights)


def _questions(
    cast: Cast,
    names: Sequence[str],
    mentioned: list[list[str]],
    rng: np.random.Generator,
    kinds: Sequence[str],
) -> list[Turn]:
    """Asks about both people: what is seen on a side, where a look is, where and what somebody named is."""
    pairs: list[tuple[str, str]] = []
    for index, member in enumerate(cast.people):
        others = [m for i, m in enumerate(cast.people) if i != index]
        unlike = [p for p in member.looks if all(p not in other.looks for other in others)]
        if "side" in kinds:
            pairs.append((HAS.format(who=f"the person on the {member.side}"), member.hair))
        if "look" in kinds and unlike:
            pairs.append(
                (PLACE.format(who=f"the person with {unlike[int(rng.integers(len(unlike)))]}"), member.side)
            )
        if "told" in kinds and mentioned[index]:
            pairs.append((HAS.format(who=names[index]), mentioned[index][0]))
        if "name" in kinds:
            pairs.append((PLACE.format(who=names[index]), member.side))
    turns: list[Turn] = []
    for index in rng.permutation(len(pairs)):
        turns += [user(pairs[index][0]), assistant(pairs[index][1])]
    return turns
