"""Who somebody is: the features that stay the same in every picture of a person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]

SKIN_TONES: tuple[Colour, ...] = (
    (255, 224, 204), (245, 200, 170), (226, 176, 136), (193, 137, 97), (146, 94, 64), (98, 62, 46),
)  # fmt: skip
HAIR_COLOURS: dict[str, Colour] = {
    "black": (38, 34, 42),
    "brown": (106, 66, 40),
    "blond": (234, 190, 92),
    "red": (196, 76, 32),
    "gray": (146, 148, 156),
    "white": (240, 240, 244),
    "blue": (58, 106, 218),
}
HAIR_STYLES = ("short", "long", "curly", "bob", "bun", "mohawk", "bald")
EYE_COLOURS: dict[str, Colour] = {"brown": (104, 62, 30), "blue": (62, 128, 206), "green": (62, 142, 84)}
GLASSES = ("none", "round", "square", "sunglasses")
GLASSES_COLOURS: dict[str, Colour] = {"black": (28, 28, 34), "red": (168, 30, 48), "gold": (190, 142, 46)}
FACIAL_HAIR = ("none", "beard", "moustache")
LIPS: dict[str, Colour] = {"natural": (196, 98, 92), "red": (206, 28, 58)}

_HAIR_COLOUR_SHARES = (0.19, 0.2, 0.18, 0.15, 0.11, 0.11, 0.06)
_HAIR_STYLE_SHARES = (0.2, 0.18, 0.16, 0.15, 0.1, 0.09, 0.12)
_GLASSES_SHARES = (0.6, 0.17, 0.16, 0.07)
_FACIAL_HAIR_SHARES = (0.7, 0.18, 0.12)


@dataclass(frozen=True)
class Person:
    """A face and its hair. Lengths are in face heights (skull to chin = 1), angles in radians.

    `skin_shade`, `hair_shade` and `facial_hair_shade` in [-1, 1] vary the named colour a little;
    `mole_side` is -1 or 1, or 0 for a face without a mole.
    """

    face_width: float
    forehead: float
    cheek_y: float
    jaw: float
    chin: float
    eye_y: float
    eye_spacing: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    iris: float
    lashes: float
    brow_height: float
    brow_width: float
    brow_tilt: float
    brow_arch: float
    brow_thickness: float
    nose_length: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    lip_thickness: float
    ear_size: float
    ear_y: float
    hair_volume: float
    hair_part: float
    shoulder_width: float
    skin: int
    skin_shade: float
    hair_colour: str
    hair_shade: float
    hair_style: str
    eye_colour: str
    glasses: str
    glasses_colour: str
    facial_hair: str
    facial_hair_colour: str
    facial_hair_shade: float
    lips: str
    mole_side: int
    mole_x: float
    mole_y: float


def _pick(rng: np.random.Generator, names: tuple[str, ...], shares: tuple[float, ...]) -> str:
    return names[int(rng.choice(len(names), p=shares))]


def sample_person(rng: np.random.Generator) -> Person:
    """Draws a person; equal generator states give equal persons."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    colours = tuple(HAIR_COLOURS)
    natural = colours[:6]
    hair_colour = _pick(rng, colours, _HAIR_COLOUR_SHARES)
    hair_style = _pick(rng, HAIR_STYLES, _HAIR_STYLE_SHARES)
    facial_hair = _pick(rng, FACIAL_HAIR, _FACIAL_HAIR_SHARES)
    other = natural[int(rng.integers(len(natural)))]
    same = hair_colour in natural and bool(rng.random() < 0.6)
    red_lips = bool(rng.random() < 0.4) and facial_hair == "none"
    return Person(
        face_width=between(0.67, 0.89),
        forehead=between(0.80, 0.97),
        cheek_y=between(-0.03, 0.09),
        jaw=between(0.60, 0.95),
        chin=between(0.12, 0.47),
        eye_y=between(-0.06, 0.05),
        eye_spacing=between(0.160, 0.212),
        eye_width=between(0.078, 0.106),
        eye_height=between(0.042, 0.076),
        eye_tilt=between(-0.22, 0.26),
        iris=between(0.045, 0.056),
        lashes=between(0.014, 0.030),
        brow_height=between(0.085, 0.135),
        brow_width=between(0.075, 0.115),
        brow_tilt=between(-0.26, 0.26),
        brow_arch=between(0.0, 0.05),
        brow_thickness=between(0.017, 0.056),
        nose_length=between(0.095, 0.215),
        nose_width=between(0.036, 0.078),
        mouth_y=between(0.255, 0.315),
        mouth_width=between(0.085, 0.172),
        lip_thickness=between(0.018, 0.044),
        ear_size=between(0.08, 0.14),
        ear_y=between(-0.02, 0.08),
        hair_volume=between(0.75, 1.3),
        hair_part=between(-1.0, 1.0),
        shoulder_width=between(0.70, 0.90),
        skin=int(rng.integers(len(SKIN_TONES))),
        skin_shade=between(-1.0, 1.0),
        hair_colour=hair_colour,
        hair_shade=between(-1.0, 1.0),
        hair_style=hair_style,
        eye_colour=_pick(rng, tuple(EYE_COLOURS), (0.4, 0.3, 0.3)),
        glasses=_pick(rng, GLASSES, _GLASSES_SHARES),
        glasses_colour=_pick(rng, tuple(GLASSES_COLOURS), (0.5, 0.3, 0.2)),
        facial_hair=facial_hair,
        facial_hair_colour=hair_colour if same else other,
        facial_hair_shade=between(-1.0, 1.0),
        lips="red" if red_lips else "natural",
        mole_side=int(rng.choice([-1, 0, 0, 1])),
        mole_x=between(0.14, 0.24),
        mole_y=between(0.10, 0.30),
    )
