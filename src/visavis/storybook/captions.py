"""The truth about a picture in words, from a closed vocabulary. For pretraining and for scoring only."""

from __future__ import annotations

from visavis.storybook.people import FACIAL_HAIR, GLASSES, HAIR_COLOURS, HAIR_STYLES, Person
from visavis.storybook.shots import BACKGROUNDS, CLOTHES, CLOTHES_COLOURS, HATS, Scene, Shot

_NAMES = """
    Olivia Emma Charlotte Amelia Sophia Isabella Ava Mia Evelyn Luna Harper Camila Sofia Scarlett Elizabeth
    Eleanor Emily Chloe Mila Violet Penelope Gianna Aria Abigail Ella Avery Hazel Nora Layla Lily Aurora Nova
    Ellie Madison Grace Isla Willow Zoe Riley Stella Eliana Ivy Victoria Emilia Zoey Naomi Hannah Lucy Elena
    Lillian Maya Leah Paisley Addison Natalie Valentina Everly Delilah Leilani Madelyn Kinsley Ruby Sophie
    Alice Genesis Claire Audrey Sadie Aaliyah Josephine Autumn Brooklyn Quinn Kennedy Cora Savannah Caroline
    Athena Natalia Hailey Aubrey Emery Anna Iris Bella Eloise Skylar Jade Gabriella Ariana Maria Adeline Lydia
    Sarah Nevaeh Serenity Liliana Ayla Everleigh Raelynn Allison Ingrid Freya Astrid Amara Yuki Priya Fatima
    Liam Noah Oliver Theodore James Henry Mateo Elijah Lucas William Benjamin Levi Ezra Sebastian Jack Daniel
    Samuel Michael Ethan Asher John Hudson Luca Leo Elias Owen Alexander Dylan Santiago Julian David Joseph
    Matthew Luke Jackson Maverick Miles Wyatt Thomas Isaac Jacob Gabriel Anthony Carter Logan Aiden Grayson
    Caleb Cooper Charles Roman Josiah Ezekiel Wesley Isaiah Joshua Waylon Nolan Cameron Micah Rowan Weston
    Bennett Lincoln Andrew Beau Adrian Theo Silas Jaxon Christopher Walker Aaron Nathan Jonathan Kai Ryan Axel
    Robert Parker Ian Jameson Everett Harrison Christian Leonardo Landon Colton Brooks Adam Hunter Dominic
    Ivan Omar Hugo Felix Oscar Arjun Kenji Tariq Diego Marco Pablo Stefan Viktor Anders Finn Otto Emil
"""
NAMES: tuple[str, ...] = tuple(_NAMES.split())

_PLACES = {
    "beach": "on the beach",
    "mountains": "in the mountains",
    "city": "in the city at night",
    "forest": "in the forest",
    "room": "in a room",
    "sunset": "at sunset",
    "cafe": "in a cafe",
    "park": "in the park",
}
_COUNTS = {2: "Two people", 3: "Three people"}


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _hair(style: str, colour: str) -> str:
    if style == "bald":
        return "a bald head"
    if style in ("bob", "bun", "mohawk"):
        return _a(f"{colour} {style}")
    if style == "curly":
        return f"curly {colour} hair"
    return f"{style} {colour} hair"


def _glasses(glasses: str) -> str:
    return "sunglasses" if glasses == "sunglasses" else f"{glasses} glasses"


def _hat(hat: str, colour: str) -> str:
    if hat == "crown":
        return "a crown"
    return "headphones" if hat == "headphones" else _a(f"{colour} {hat}")


LOOKS_VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys(
        [_hair(style, colour) for style in HAIR_STYLES for colour in HAIR_COLOURS]
        + [_glasses(glasses) for glasses in GLASSES if glasses != "none"]
        + [_a(hair) for hair in FACIAL_HAIR if hair != "none"]
        + [_hat(hat, colour) for hat in HATS if hat != "none" for colour in CLOTHES_COLOURS]
    )
)
CLOTHES_VOCABULARY: tuple[str, ...] = tuple(_a(f"{c} {kind}") for kind in CLOTHES for c in CLOTHES_COLOURS)
PLACES_VOCABULARY: tuple[str, ...] = tuple(_PLACES[background] for background in BACKGROUNDS)


def looks(person: Person, shot: Shot) -> tuple[str, ...]:
    """Returns what tells a person apart in a picture, the most distinctive first.

    There is always a phrase for the hair or the bald head; each phrase is in `LOOKS_VOCABULARY`.
    """
    hair = _hair(person.hair_style, person.hair_colour)
    striking = person.hair_style in ("mohawk", "bald") or person.hair_colour == "blue"
    phrases = [hair] if striking else []
    if shot.hat != "none":
        phrases.append(_hat(shot.hat, shot.hat_colour))
    if not striking and person.hair_style != "short":
        phrases.append(hair)
    if person.glasses != "none":
        phrases.append(_glasses(person.glasses))
    if person.facial_hair != "none":
        phrases.append(_a(person.facial_hair))
    if hair not in phrases:
        phrases.append(hair)
    return tuple(phrases)


def place(background: str) -> str:
    """Returns where a background is, such as "on the beach"."""
    return _PLACES[background]


def clothes(shot: Shot) -> str:
    """Returns what a person wears, such as "an orange hoodie"."""
    return _a(f"{shot.clothes_colour} {shot.clothes}")


def describe(person: Person, shot: Shot) -> str:
    """Returns all that is known in words of one person in a picture."""
    return " and ".join([f"{', '.join(looks(person, shot))}", clothes(shot)])


def caption(scene: Scene) -> str:
    """Returns one sentence about a scene; people are told from left to right."""
    where = place(scene.background)
    if not scene.people:
        names = list(dict.fromkeys(_a(f"{thing.colour} {thing.kind}") for thing in scene.things))
        return f"{' and '.join(names).capitalize()} {where}."
    order = sorted(range(len(scene.people)), key=lambda i: scene.shots[i].x)
    told = [f"a person with {describe(scene.people[i], scene.shots[i])}" for i in order]
    if len(told) == 1:
        return f"{told[0].capitalize()} {where}."
    return f"{_COUNTS[len(told)]} {where}: {'; '.join(told)}."
