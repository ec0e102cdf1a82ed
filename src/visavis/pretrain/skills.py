"""What the pretrained model can do before visavis tunes it: the skills that SEED-X brings along, in small.

Text-to-image, describing a person, naming a place, who is who by name, where somebody stands, and crops. The chats
that visavis teaches (a close-up of somebody by name after a generated picture) are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis.chat.template import RESPONSE, Turn, assistant, user
from visavis.data.chats.plan import plan
from visavis.data.config import Prompts

SIDES = ("left", "right")
DESCRIBE = "Describe this person."
WHERE = "Where is this?"
CROPS = ("Show the face of {target}.", "Show me a close-up of {target}", "Draw the face of {target}")
HAS = "What has {who}?"
PLACE = "Where is {who}?"
_QUESTIONS: dict[str, tuple[str, ...]] = {
    "who": ("side", "look", "told", "name"),
    "side": (),
    "crop": ("look",),
    "name": ("name",),
}
GENERATE = "Generate an image: {caption}"
OPENINGS = ("two friends, ", "a photo of ", "a picture of ", "")
STYLES = (0.66, 0.2, 0.14)
"""Shares of captions that tell of a person the looks, the side, nothing."""
SIDES_OFTEN = (0.38, 0.54, 0.08)
_PLANNED = 0.8
"""Share of pictures of two people whose reply says who of them stands where."""
HAIR_WORDS = ("hair", "head", "bob", "bun", "mohawk")
SKILLS = ("text", "paint", "describe", "place", "who", "side", "crop", "name")


@dataclass(frozen=True)
class Member:
    """One person of a picture, in words.

    Attributes:
        looks: Phrases, the most telling first ("a crown", "long red hair", "round glasses"); clothes last, if seen.
        side: `left` or `right` in a picture of two, empty otherwise.
        face: Row of the masked close-up in the picture set.
    """

    looks: tuple[str, ...]
    side: str = ""
    face: int = -1

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
    """Turns whose picture numbers index `pictures` (rows of the picture set).

    Attributes:
        turns: The conversation.
        pictures: Row of each picture.
        weights: Regression weight of each picture, for generated ones.
        reread: Whether later turns see the generated pictures; otherwise each turn is a request of its own.
    """

    turns: list[Turn]
    pictures: list[int]
    weights: list[float]
    reread: bool = False


def is_hair(phrase: str) -> bool:
    """Whether a looks phrase is about the hair."""
    return phrase.split()[-1] in HAIR_WORDS


def _phrases(member: Member, others: Sequence[Member], rng: np.random.Generator, count: int) -> list[str]:
    """Draws up to `count` phrases, those that tell the person from the others first."""
    shared = {phrase for other in others for phrase in other.looks}
    own = [phrase for phrase in member.looks if phrase not in shared] or list(member.looks)
    picked = rng.permutation(len(own))[:count]
    return [own[int(i)] for i in sorted(picked)]


def caption(
    cast: Cast, names: Sequence[str], rng: np.random.Generator, styles_share: Sequence[float] = STYLES
) -> tuple[str, list[list[str]], list[int]]:
    """Writes a caption with one clause per named person, in an order that says nothing about left and right.

    Returns:
        The text, for each person the phrases that it mentions, and the people in the order in which it names them.
    """
    people = cast.people
    styles = [str(s) for s in rng.choice(["looks", "side", "bare"], size=len(people), p=styles_share)]
    if all(style == "bare" for style in styles) or len(people) > 2:
        styles = ["looks"] * len(people)
    mentioned: list[list[str]] = [[] for _ in people]
    clauses = []
    order = [int(index) for index in rng.permutation(len(people))]
    for index in order:
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
    return opening + " and ".join(clauses) + place, mentioned, order


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
    skill: str,
    cast: Cast,
    names: Sequence[str],
    rng: np.random.Generator,
    crop_weight: float,
    varied: bool = False,
) -> Sample:
    """Builds one sample of a skill for a picture of two people (paint, describe and place: of any number).

    `who` asks in words; `side` and `crop` want both faces, by side or (crop) by looks too; `name` asks where everybody
    named is, and wants both faces by name.

    Args:
        skill: One of `SKILLS` but `text`.
        cast: The picture.
        names: A name for each person.
        rng: The only source of chance.
        crop_weight: Regression weight of a crop (crops vary less than pictures).
        varied: Whether requests and replies vary in wording and order, a question may come first and crops are
            mostly read again, as in SEED-X's instruction data: what was learned from one form must hold in others.
    """
    people = cast.people
    if skill == "paint":
        text, used, order = caption(cast, names, rng) if people else (cast.place, [], [])
        words = RESPONSE
        if len(people) == 2 and rng.random() < _PLANNED:
            words = plan(Prompts(), [member.looks for member in people], used, order)
        return Sample([user(GENERATE.format(caption=text)), assistant(words, 0)], [cast.picture], [1.0])
    if skill == "describe":
        return Sample([user(0, DESCRIBE), assistant(", ".join(people[0].looks))], [cast.picture], [1.0])
    if skill == "place":
        return Sample([user(0, WHERE), assistant(cast.place)], [cast.picture], [1.0])
    text, mentioned, _ = caption(cast, names, rng, SIDES_OFTEN if skill == "name" else STYLES)
    turns: list[Turn] = []
    pictures, weights = [cast.picture], [1.0]
    for index in rng.permutation(len(people)) if skill != "who" else ():
        member, others = people[index], [m for i, m in enumerate(people) if i != index]
        kind = ("side", "look")[int(rng.integers(2))] if skill == "crop" else skill
        target = {
            "name": names[index],
            "side": f"the person on the {member.side}",
            "look": f"the person with {_phrases(member, others, rng, 1)[0]}",
        }[kind]
        request = CROPS[int(rng.integers(len(CROPS)))] if varied else CROPS[0]
        reply = (RESPONSE,) if varied and rng.random() < 0.7 else ()
        turns += [user(request.format(target=target)), assistant(*reply, len(pictures))]
        pictures.append(member.face)
        weights.append(crop_weight)
    # Questions come last, or a crop could be cut by the answer to one.
    turns += _questions(cast, names, mentioned, rng, _QUESTIONS[skill])
    if varied and cast.place and rng.random() < 0.6:
        turns = [user(WHERE), assistant(cast.place), *turns]
    lead = [{"type": "image", "image": 0}]
    if skill in ("who", "name"):
        lead.insert(int(varied and rng.random() < 0.3), {"type": "text", "text": f"{text}."})
    turns[0]["content"] = [*lead, *turns[0]["content"]]
    return Sample(turns, pictures, weights, reread=varied and rng.random() < 0.7)


def _questions(
    cast: Cast,
    names: Sequence[str],
    mentioned: list[list[str]],
    rng: np.random.Generator,
    kinds: Sequence[str],
) -> list[Turn]:
    """Asks what is seen on a side and what was told of somebody, and once where somebody is, by look or by name.

    Where only one is asked for: of two people, the second answer would follow from the first.
    """
    pairs: list[tuple[str, str]] = []
    for index, member in enumerate(cast.people):
        if "side" in kinds:
            pairs.append((HAS.format(who=f"the person on the {member.side}"), member.hair))
        if "told" in kinds and mentioned[index]:
            pairs.append((HAS.format(who=names[index]), mentioned[index][0]))
    asked = int(rng.integers(len(cast.people)))
    member = cast.people[asked]
    others = [m for i, m in enumerate(cast.people) if i != asked]
    unlike = [p for p in member.looks if all(p not in other.looks for other in others)]
    places = [names[asked]] if "name" in kinds else []
    if "look" in kinds and unlike:
        places.append(f"the person with {unlike[int(rng.integers(len(unlike)))]}")
    if places:
        pairs.append((PLACE.format(who=places[int(rng.integers(len(places)))]), member.side))
    return [
        turn
        for index in rng.permutation(len(pairs))
        for turn in (user(pairs[index][0]), assistant(pairs[index][1]))
    ]
