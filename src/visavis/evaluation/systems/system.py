"""What a system must be able to do to be scored, and the systems that come with visavis."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

from visavis.errors import VisavisError
from visavis.evaluation.items import Picture
from visavis.packs import Pack


class System(Protocol):
    """Anything that makes a picture of words and pictures."""

    def generate(self, prompt: str, images: Sequence[Picture], seed: int = 0) -> Picture | None:
        """Returns a picture `[H, W, 3]` of any size; None if the system answered without one.

        Args:
            prompt: All that the user said, one request a line.
            images: Pictures shown so far, the oldest first; none for a picture from words alone.
            seed: Of the noise.
        """
        ...


SYSTEMS = {
    "seedx": "visavis.evaluation.systems.seedx:SeedX",
    "emu2": "visavis.evaluation.systems.emu2:Emu2",
    "ip_adapter": "visavis.evaluation.systems.ip_adapter:IpAdapter",
}
"""Name to class; its `from_pack` reads the weights."""


def open_system(name: str, pack: Pack) -> System:
    """Loads a system with the weights of a pack.

    Args:
        name: One of `SYSTEMS`, or `module:Class` of your own, with a `from_pack` like theirs.
        pack: Its parts; each class says which it reads.

    Raises:
        VisavisError: If there is no such system, or the pack lacks a part.
    """
    module, _, kind = SYSTEMS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise VisavisError(
            f"there is no system {name!r}: {error}",
            fix=f"take one of {', '.join(SYSTEMS)}, or module:Class of your own",
        ) from error
    system: System = found.from_pack(pack)
    return system
