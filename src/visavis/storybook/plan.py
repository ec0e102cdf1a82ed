"""Which clips to make: how many of each kind, and who is in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis.errors import VisavisError
from visavis.storybook.people import Person, sample_person

# Shares of a collection as it comes from the wild: what is good, and what a curation must find and drop.
SHARES: dict[str, float] = {
    "pair": 0.62,
    "one": 0.07,
    "three": 0.07,
    "far": 0.09,
    "cut": 0.05,
    "duplicate": 0.05,
    "truncated": 0.03,
    "not_video": 0.02,
}
_PEOPLE_IN = {"pair": 2, "one": 1, "three": 3, "far": 2, "cut": 4, "truncated": 2, "not_video": 0}
# From this number of clips on there is at least one of each kind.
_EVERY_KIND_FROM = 16
_CLIPS_PER_PERSON = 3
_CLIPS_PER_CIRCLE = 4
_MEET_AGAIN = 0.45
# Training people come from seeds below 10**6 and evaluation people from below 2 * 10**6: clips show neither.
_FIRST_PERSON_SEED = 2_000_000
_PEOPLE_PER_SEED = 1_000_000


@dataclass(frozen=True)
class ClipScript:
    """What one clip file will be.

    Attributes:
        seed: Of the collection.
        index: Of the clip in it.
        kind: One of `SHARES`.
        people: Ids of the people it shows; of a "cut", two before the cut and two after it.
        duplicate_of: Index of the clip that a "duplicate" repeats.
    """

    seed: int
    index: int
    kind: str
    people: tuple[int, ...]
    duplicate_of: int | None = None

    @property
    def file(self) -> str:
        """Returns the file's path in the collection."""
        return f"clips/{self.index:06d}.mp4"

    def rng(self) -> np.random.Generator:
        """Returns the clip's own source of chance."""
        return np.random.default_rng([self.seed, self.index])


def person_of(seed: int, person: int) -> Person:
    """Returns a person of the collection of a seed; nobody in pretraining has the same seed."""
    return sample_person(np.random.default_rng(_FIRST_PERSON_SEED + seed * _PEOPLE_PER_SEED + person))


def plan_clips(count: int, seed: int, shares: dict[str, float] | None = None) -> tuple[ClipScript, ...]:
    """Decides kind and people of every clip.

    People meet in small circles: a person is in one to three clips, and few clips hang together, so that a
    collection can be split by identity.

    Raises:
        VisavisError: If a share is unknown or negative, the shares do not add to 1, or there are duplicates
            of nothing.
    """
    shares = SHARES if shares is None else shares
    _check(count, seed, shares)
    rng = np.random.default_rng([seed, count])
    kinds = [kind for kind, number in _amounts(count, shares).items() for _ in range(number)]
    kinds = [kinds[int(i)] for i in rng.permutation(len(kinds))]
    if "duplicate" in kinds:
        # Something must come before its duplicate.
        first = kinds.index("pair")
        kinds[0], kinds[first] = kinds[first], kinds[0]
    circles = _Circles(rng)
    scripts: list[ClipScript] = []
    for index, kind in enumerate(kinds):
        if kind == "duplicate":
            pairs = [script for script in scripts if script.kind == "pair"]
            original = pairs[int(rng.integers(len(pairs)))]
            scripts.append(ClipScript(seed, index, kind, original.people, original.index))
        else:
            scripts.append(ClipScript(seed, index, kind, circles.meet(_PEOPLE_IN[kind])))
    return tuple(scripts)


def recordings(scripts: Sequence[ClipScript]) -> tuple[str, ...]:
    """Returns the name of the recording that each clip was cut from.

    Clips that share a person, also through other clips, come from one recording; nobody is in two of them.
    """
    home: dict[int, int] = {}
    first: list[int] = []
    for script in scripts:
        met = sorted({home[person] for person in script.people if person in home})
        recording = met[0] if met else script.index
        if len(met) > 1:
            home = {person: recording if number in met else number for person, number in home.items()}
            first = [recording if number in met else number for number in first]
        home.update(dict.fromkeys(script.people, recording))
        first.append(recording)
    return tuple(f"{script.seed}-{number:06d}" for script, number in zip(scripts, first, strict=True))


class _Circles:
    """Hands out people who know one another."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._next, self._clips_left = 0, 0
        self._uses: dict[int, int] = {}

    def meet(self, count: int) -> tuple[int, ...]:
        """Returns `count` different people, some of them seen before in the same circle."""
        if not count:
            return ()
        if not self._clips_left:
            self._uses = {}
            self._clips_left = int(self._rng.integers(1, _CLIPS_PER_CIRCLE + 1))
        self._clips_left -= 1
        chosen: list[int] = []
        for _ in range(count):
            known = [p for p, uses in self._uses.items() if uses < _CLIPS_PER_PERSON and p not in chosen]
            if known and self._rng.random() < _MEET_AGAIN:
                person = known[int(self._rng.integers(len(known)))]
            else:
                person, self._next = self._next, self._next + 1
            chosen.append(person)
        for person in chosen:
            self._uses[person] = self._uses.get(person, 0) + 1
        return tuple(chosen)


def _check(count: int, seed: int, shares: dict[str, float]) -> None:
    if count < 1:
        raise VisavisError(f"count is {count}", fix="Ask for at least 1 clip.")
    if seed < 0:
        raise VisavisError(f"seed is {seed}", fix="Use a seed of 0 or more.")
    if unknown := sorted(set(shares) - set(SHARES)):
        raise VisavisError(f"shares: unknown kind {unknown[0]!r}", fix=f"Use some of {', '.join(SHARES)}.")
    if negative := [kind for kind, share in shares.items() if share < 0]:
        raise VisavisError(f"shares.{negative[0]} is {shares[negative[0]]}", fix="Use shares of 0 or more.")
    if not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6):
        raise VisavisError(f"shares add to {sum(shares.values()):g}", fix="Make the shares add to 1.")
    amounts = _amounts(count, shares)
    if amounts.get("duplicate") and not amounts.get("pair"):
        raise VisavisError(
            f"shares: {amounts['duplicate']} duplicates, but no pair to repeat",
            fix="Raise shares.pair or set shares.duplicate to 0.",
        )


def _amounts(count: int, shares: dict[str, float]) -> dict[str, int]:
    """Returns whole numbers that add to `count`, by largest remainders."""
    exact = {kind: share * count for kind, share in shares.items() if share > 0}
    amounts = {kind: int(value) for kind, value in exact.items()}
    by_remainder = sorted(exact, key=lambda kind: amounts[kind] - exact[kind])
    for kind in by_remainder[: count - sum(amounts.values())]:
        amounts[kind] += 1
    if count >= _EVERY_KIND_FROM:
        for kind in [kind for kind, amount in amounts.items() if amount == 0]:
            amounts[max(amounts, key=lambda k: amounts[k])] -= 1
            amounts[kind] = 1
    return amounts
