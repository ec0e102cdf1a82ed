"""A study on disk, and who rates what: balanced over items, sides shuffled, attention checks in between."""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visavis.errors import VisavisError
from visavis.files import atomic_dir, write_atomic
from visavis.study.pairs import Pair
from visavis.study.questions import questions_for

PLAN, PICTURES = "plan.json", "pictures"
_ID_BYTES = 12


class Settings(BaseModel):
    """How a study is run.

    Attributes:
        votes_per_item: Raters for each item.
        items_per_rater: Most items that one rater is given, checks not counted; 0: all.
        checks: Attention checks of a rater, as a share of the rater's items; at least one unless 0.
        allowed_failures: Largest share of wrong votes on attention checks; a rater above it is not counted.
        seed: Of sides, orders and checks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    votes_per_item: int = Field(default=4, ge=1)
    items_per_rater: int = Field(default=0, ge=0)
    checks: float = Field(default=0.1, ge=0, le=0.5)
    allowed_failures: float = Field(default=0.25, ge=0, lt=1)
    seed: int = 0


class Item(BaseModel):
    """What is shown at once; of an attention check, A is the intact picture and B the broken one.

    Attributes:
        id: Known to the rater's browser; tells nothing.
        name: Of the pair.
        prompt: May be empty.
        face: Id of the face's picture.
        a: Id of the picture of system A.
        b: Id of the picture of system B.
        system_a: Name of system A.
        system_b: Name of system B.
        check: Whether this is an attention check.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    name: str
    prompt: str
    face: str | None
    a: str
    b: str
    system_a: str
    system_b: str
    check: bool = False

    @property
    def questions(self) -> tuple[str, ...]:
        """Names of the questions that are asked about it."""
        return questions_for(self.prompt, self.face)


class Plan(BaseModel):
    """What `plan.json` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    id: str
    settings: Settings
    items: tuple[Item, ...] = Field(min_length=1)
    checks: tuple[Item, ...] = ()

    @property
    def system(self) -> str:
        """The system whose wins are counted."""
        return self.items[0].system_a

    def by_id(self) -> dict[str, Item]:
        """Returns items and checks by their ids."""
        return {item.id: item for item in (*self.items, *self.checks)}


@dataclass(frozen=True)
class Study:
    """A study on disk."""

    folder: Path
    plan: Plan

    def picture(self, picture_id: str) -> Path:
        """Returns the file of a picture, a PNG without metadata."""
        return self.folder / PICTURES / f"{picture_id}.png"


def create_study(folder: Path, pairs: Sequence[Pair], settings: Settings) -> Study:
    """Writes the folder of a study: it holds all that is needed, under names that tell nothing.

    Pictures are written anew as PNG, since metadata (content credentials, say) may name their system.

    Args:
        folder: Must not exist, or be empty.
        pairs: What is compared.
        settings: How.

    Raises:
        VisavisError: If the folder holds something, or a picture cannot be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise VisavisError(
            f"{folder} is there and not empty", fix="give another folder; votes are not overwritten"
        )
    with atomic_dir(folder) as partial:
        (partial / PICTURES).mkdir()

        def stored(source: Path | None) -> str | None:
            return None if source is None else _store(_opened(source), partial)

        items = tuple(
            Item(
                id=secrets.token_hex(_ID_BYTES),
                name=pair.name,
                prompt=pair.prompt,
                face=stored(pair.face),
                a=_store(_opened(pair.a), partial),
                b=_store(_opened(pair.b), partial),
                system_a=pair.system_a,
                system_b=pair.system_b,
            )
            for pair in pairs
        )
        checks = tuple(_broken(item, partial, settings.seed) for item in _chosen_for_checks(items, settings))
        plan = Plan(id=secrets.token_hex(8), settings=settings, items=items, checks=checks)
        write_atomic(partial / PLAN, plan.model_dump_json(indent=2) + "\n")
    return Study(folder, plan)


def open_study(folder: Path) -> Study:
    """Reads a study.

    Raises:
        VisavisError: If the folder is none.
    """
    path = folder / PLAN
    if not path.is_file():
        raise VisavisError(f"{folder} is no study: it has no {PLAN}", fix="make one: `visavis study create`")
    try:
        return Study(folder, Plan.model_validate_json(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise VisavisError(f"{path}: {where}: {first['msg']}", fix="make the study anew") from None


def assign(plan: Plan, rater: str, load: Mapping[str, int]) -> tuple[str, ...]:
    """Chooses what a new rater sees, in order.

    The items with the fewest raters come first, so that at any time no item has two raters more than another.

    Args:
        plan: The study.
        rater: Who; order and choice among equals depend on it and on the study's seed.
        load: Raters by id of item.

    Returns:
        Ids of items and checks; empty if every item has its raters.
    """
    settings = plan.settings
    draw = _random(settings.seed, "order", rater)
    open_items = [item for item in plan.items if load.get(item.id, 0) < settings.votes_per_item]
    draw.shuffle(open_items)
    open_items.sort(key=lambda item: load.get(item.id, 0))
    chosen = open_items[: settings.items_per_rater or None]
    draw.shuffle(chosen)
    order = [item.id for item in chosen]
    if order and plan.checks:
        count = min(_count(settings.checks, len(order)), len(plan.checks))
        for check in draw.sample(list(plan.checks), count):
            # Nobody is tried before having seen what an ordinary pair looks like.
            order.insert(draw.randint(1, len(order)), check.id)
    return tuple(order)


def sides(plan: Plan, rater: str, count: int) -> tuple[bool, ...]:
    """Tells for each of a rater's items whether system A's picture is on the left; the same at every call.

    Half of them are, so that a rater who likes one side favours no system.
    """
    draw = _random(plan.settings.seed, "sides", rater)
    left = [number % 2 == 0 for number in range(count + draw.randint(0, 1))][-count:] if count else []
    draw.shuffle(left)
    return tuple(left)


def _count(share: float, items: int) -> int:
    return max(1, round(share * items)) if share else 0


def _chosen_for_checks(items: tuple[Item, ...], settings: Settings) -> list[Item]:
    size = min(settings.items_per_rater or len(items), len(items))
    return _random(settings.seed, "checks").sample(list(items), min(_count(settings.checks, size), size))


def _broken(item: Item, folder: Path, seed: int) -> Item:
    """Returns the attention check of an item: one of its pictures beside noise of the same size."""
    intact = item.a if _random(seed, "intact", item.name).random() < 0.5 else item.b
    with Image.open(folder / PICTURES / f"{intact}.png") as image:
        width, height = image.size
    noise = np.random.default_rng(_number(seed, "noise", item.name)).integers(0, 256, (height, width, 3))
    broken = _store(Image.fromarray(noise.astype(np.uint8)), folder)
    fresh = {"id": secrets.token_hex(_ID_BYTES), "a": intact, "b": broken, "check": True}
    return item.model_copy(update=fresh)


def _opened(source: Path) -> Image.Image:
    """Returns a picture as RGB, upright; transparent parts become white."""
    try:
        with Image.open(source) as image:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception as error:  # Pillow raises whatever a broken file makes its codecs raise
        raise VisavisError(
            f"{source} cannot be read: {type(error).__name__}", fix="replace or remove this picture"
        ) from None
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")


def _store(image: Image.Image, folder: Path) -> str:
    picture_id = secrets.token_hex(_ID_BYTES)
    image.save(folder / PICTURES / f"{picture_id}.png")
    return picture_id


def _random(seed: int, *parts: str) -> random.Random:
    return random.Random(_number(seed, *parts))


def _number(seed: int, *parts: str) -> int:
    words = "\0".join((str(seed), *parts)).encode()
    return int.from_bytes(hashlib.sha256(words).digest()[:8])
