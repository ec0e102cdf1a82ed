"""What one picture shows: clothes, expression, pose, hat, light, and where everybody stands.

Positions are in picture heights: `x` from the middle of the picture, `y` from its top. So the centre square
of a wide picture is exactly the square picture of the same scene.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from visavis.errors import VisavisError
from visavis.storybook.people import Colour, Person

CLOTHES = ("hoodie", "suit", "sweater")
CLOTHES_COLOURS: dict[str, Colour] = {
    "red": (206, 40, 46),
    "orange": (240, 132, 34),
    "yellow": (246, 204, 50),
    "green": (36, 142, 76),
    "blue": (42, 92, 206),
    "purple": (128, 58, 172),
    "white": (238, 238, 236),
    "black": (44, 44, 52),
}
HATS = ("none", "cap", "beanie", "crown", "headphones")
EXPRESSIONS = ("neutral", "smile", "laugh", "sad", "surprised", "wink")
BACKGROUNDS = ("beach", "mountains", "city", "forest", "room", "sunset", "cafe", "park")
LAYOUTS = ("empty", "portrait", "one", "full_body", "pair", "pair_far", "three")
THINGS = ("ball", "tree", "house", "cat", "car", "balloon", "boat", "mushroom")

_PEOPLE_IN = {"empty": 0, "portrait": 1, "one": 1, "full_body": 1, "pair": 2, "pair_far": 2, "three": 3}
_HAT_SHARES = (0.68, 0.1, 0.09, 0.06, 0.07)
_LOW_HATS = ("cap", "beanie", "crown")
_TALL_HAIR = ("mohawk", "bun")
# Brightness and warmth ranges that make people look as if they stood in the place.
_LIGHT = {"city": (0.88, 1.0, -0.5, 0.3), "sunset": (0.86, 1.0, 0.2, 1.0)}
_DAYLIGHT = (0.92, 1.06, -0.4, 0.5)
_MAX_YAW, _MAX_ROLL, _MAX_PITCH = 0.46, 0.2, 0.5

_Record = TypeVar("_Record", bound="Shot | Thing")


@dataclass(frozen=True)
class Shot:
    """How a person looks in one picture. `x`, `y` place the middle of the face, `size` is the face height.

    Angles are in radians: `yaw` > 0 looks to the right of the picture, `roll` > 0 leans clockwise;
    `pitch` in [-1, 1], `brightness` about 1, `warmth` in [-1, 1], `stance` in [-1, 1] moves the arms.
    """

    clothes: str
    clothes_colour: str
    expression: str
    blink: bool
    yaw: float
    roll: float
    pitch: float
    gaze: float
    hat: str
    hat_colour: str
    brightness: float
    warmth: float
    stance: float
    x: float = 0.0
    y: float = 0.5
    size: float = 0.4


@dataclass(frozen=True)
class Thing:
    """An object of an empty scene; `x`, `y` is where it touches the ground, `size` its height."""

    kind: str
    colour: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows. `people[i]` is shown as `shots[i]` says; later ones stand in front.

    `detail` is the seed of the small things in the background.
    """

    people: tuple[Person, ...]
    shots: tuple[Shot, ...]
    background: str
    layout: str
    detail: int = 0
    things: tuple[Thing, ...] = ()


def _choice(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def sample_shot(rng: np.random.Generator) -> Shot:
    """Draws a shot in the middle of the picture; equal generator states give equal shots."""
    brightness, brightest, coolest, warmest = _DAYLIGHT
    return Shot(
        clothes=_choice(rng, CLOTHES),
        clothes_colour=_choice(rng, tuple(CLOTHES_COLOURS)),
        expression=_choice(rng, EXPRESSIONS),
        blink=bool(rng.random() < 0.03),
        yaw=float(np.clip(rng.normal(0, 0.2), -_MAX_YAW, _MAX_YAW)),
        roll=float(np.clip(rng.normal(0, 0.08), -_MAX_ROLL, _MAX_ROLL)),
        pitch=float(np.clip(rng.normal(0, 0.22), -_MAX_PITCH, _MAX_PITCH)),
        gaze=float(rng.uniform(-1, 1)),
        hat=HATS[int(rng.choice(len(HATS), p=_HAT_SHARES))],
        hat_colour=_choice(rng, tuple(CLOTHES_COLOURS)),
        brightness=float(rng.uniform(brightness, brightest)),
        warmth=float(rng.uniform(coolest, warmest)),
        stance=float(rng.uniform(-1, 1)),
    )


def _places(rng: np.random.Generator, people: tuple[Person, ...], layout: str, aspect: float) -> list[Shot]:
    """Returns a shot per person with x, y and size set for the layout."""
    shots = [sample_shot(rng) for _ in people]

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    if layout in ("portrait", "one", "full_body"):
        size = {"portrait": (0.56, 0.64), "one": (0.32, 0.42), "full_body": (0.195, 0.22)}[layout]
        height = {"portrait": (0.46, 0.51), "one": (0.40, 0.52), "full_body": (0.235, 0.265)}[layout]
        reach = {"portrait": 0.05, "one": 0.16, "full_body": 0.24}[layout]
        x = between(-reach, reach) + (between(-0.5, 0.5) * (aspect - 1) if layout != "portrait" else 0.0)
        return [replace(shots[0], x=x, y=between(*height), size=between(*size))]
    if layout == "pair":
        sizes = [max(between(0.41, 0.45), 0.306 / person.face_width) for person in people]
        middle = between(-0.5, 0.5) * (aspect - 1) * 0.8
        # Never closer than two half faces, so that no face hides another.
        faces = sum(size * person.face_width for size, person in zip(sizes, people, strict=True)) / 2
        apart = max(faces + 0.07, between(0.46, 0.50))
        lean = between(-0.012, 0.012)
        spots = [middle + lean - apart / 2, middle + lean + apart / 2]
        return [
            replace(shot, x=x, y=between(0.44, 0.53), size=size)
            for shot, x, size in zip(shots, spots, sizes, strict=True)
        ]
    if layout == "pair_far":
        spread = aspect / 2 - 0.16
        return [
            replace(
                shot,
                x=side * spread + between(-0.02, 0.02),
                y=between(0.40, 0.52),
                size=between(0.24, 0.29),
            )
            for shot, side in zip(shots, (-1, 1), strict=True)
        ]
    step = 0.32 if aspect <= 1 else 0.4
    return [
        replace(shot, x=k * step + between(-0.015, 0.015), y=between(0.40, 0.56), size=between(0.27, 0.31))
        for shot, k in zip(shots, (-1, 0, 1), strict=True)
    ]


def sample_scene(
    rng: np.random.Generator, people: tuple[Person, ...], layout: str, aspect: float = 1.0
) -> Scene:
    """Draws a scene of these people.

    Args:
        rng: The only source of chance.
        people: As many as the layout shows: none for "empty", two for "pair"...
        layout: One of `LAYOUTS`.
        aspect: Width over height of the widest picture it will be drawn to.

    Raises:
        VisavisError: If the layout is unknown or does not fit the number of people.
    """
    if layout not in _PEOPLE_IN:
        raise VisavisError(f"layout: unknown layout {layout!r}", fix=f"Use one of {', '.join(LAYOUTS)}.")
    if len(people) != _PEOPLE_IN[layout]:
        raise VisavisError(
            f"people: layout {layout!r} shows {_PEOPLE_IN[layout]} people, got {len(people)}",
            fix=f"Pass a tuple of {_PEOPLE_IN[layout]} persons.",
        )
    background = _choice(rng, BACKGROUNDS)
    detail = int(rng.integers(1 << 31))
    if layout == "empty":
        return Scene((), (), background, layout, detail, _sample_things(rng, aspect))
    people = tuple(people[int(i)] for i in rng.permutation(len(people)))
    low, high, cool, warm = _LIGHT.get(background, _DAYLIGHT)
    brightness, warmth = float(rng.uniform(low, high)), float(rng.uniform(cool, warm))
    placed = _places(rng, people, layout, aspect)
    shots = [replace(shot, brightness=brightness, warmth=warmth) for shot in placed]
    shots = [
        # A cap would hide a mohawk or a bun, and with it what the person is known by.
        replace(shot, hat="none") if person.hair_style in _TALL_HAIR and shot.hat in _LOW_HATS else shot
        for person, shot in zip(people, shots, strict=True)
    ]
    order = rng.permutation(len(people))
    return Scene(
        tuple(people[int(i)] for i in order), tuple(shots[int(i)] for i in order), background, layout, detail
    )


def _sample_things(rng: np.random.Generator, aspect: float) -> tuple[Thing, ...]:
    things = [
        Thing(
            kind=_choice(rng, THINGS),
            colour=_choice(rng, tuple(CLOTHES_COLOURS)),
            x=float(rng.uniform(-0.42, 0.42) * aspect),
            y=float(rng.uniform(0.78, 0.97)),
            size=float(rng.uniform(0.16, 0.36)),
        )
        for _ in range(int(rng.integers(1, 5)))
    ]
    return tuple(sorted(things, key=lambda thing: thing.y))


def move(scene: Scene, rng: np.random.Generator) -> Scene:
    """Returns the same people in the same place a second later.

    They shift and turn a little; one in three changes expression, some blink. In a pair the faces stay apart
    and keep their sides.
    """

    def step(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    shots = []
    for shot in scene.shots:
        changes: dict[str, Any] = {
            # At most 0.02 of the picture, because a pair is as little as 0.07 apart.
            "x": shot.x + step(-0.02, 0.02),
            "y": shot.y + step(-0.025, 0.025),
            "size": shot.size * step(1.0, 1.03),
            "yaw": float(np.clip(shot.yaw + rng.normal(0, 0.26), -_MAX_YAW, _MAX_YAW)),
            "roll": float(np.clip(shot.roll + rng.normal(0, 0.09), -_MAX_ROLL, _MAX_ROLL)),
            "pitch": float(np.clip(shot.pitch + rng.normal(0, 0.2), -_MAX_PITCH, _MAX_PITCH)),
            "gaze": step(-1, 1),
            "stance": shot.stance + step(-0.2, 0.2),
            "blink": bool(rng.random() < 0.06),
        }
        if rng.random() < 0.3:
            changes["expression"] = _choice(rng, tuple(e for e in EXPRESSIONS if e != shot.expression))
        shots.append(replace(shot, **changes))
    return replace(scene, shots=tuple(shots))


def _blend(a: _Record, b: _Record, t: float) -> _Record:
    changes = {}
    for field in fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, float):
            changes[field.name] = left + (right - left) * t
        else:
            changes[field.name] = left if t < 0.5 else right
    return replace(a, **changes)


def interpolate(scene_a: Scene, scene_b: Scene, t: float) -> Scene:
    """Returns the scene at time `t` in [0, 1] between two scenes of the same people in the same order.

    Numbers change smoothly; words (expression, hat...) change half way.

    Raises:
        VisavisError: If the scenes show different people.
    """
    if scene_a.people != scene_b.people:
        raise VisavisError(
            "interpolate: the two scenes show different people", fix="Make the second scene with move()."
        )
    ease = t * t * (3 - 2 * t)
    shots = tuple(_blend(a, b, ease) for a, b in zip(scene_a.shots, scene_b.shots, strict=True))
    return replace(scene_a if t < 0.5 else scene_b, shots=shots)
