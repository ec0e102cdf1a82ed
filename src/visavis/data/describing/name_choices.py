"""Names to choose from: an even hand over the list, for namers that choose by what they read about a person.

The bundled list holds 217 single-word first names. `name_groups.txt` says how each is typically used: 98 for women,
105 for men, 14 for either. 24 letters begin a name (none U or X), the most common, A, one name in seven. By origin
it is *not* balanced: most names are common in North America, a few come from elsewhere (Arjun, Fatima, Kenji, Priya,
Tariq, Yuki...); give `describe.names` another list where that matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from visavis.data.config import DescribeConfig
from visavis.data.describing.naming import bundled_names, clip_rng


@cache
def name_groups() -> Mapping[str, tuple[str, ...]]:
    """Returns the bundled names by typical use: `feminine`, `masculine` and `either`."""
    text = (files("visavis.data.describing") / "name_groups.txt").read_text(encoding="utf-8")
    lines = (line.partition(":") for line in text.splitlines())
    return {group: tuple(names.split()) for group, _, names in lines}


def name_choices(clip_id: str, config: DescribeConfig) -> tuple[str, ...]:
    """Draws the names that a namer may choose from for one clip.

    The groups of the list take turns, so that whoever is in the clip, there are names that fit; names of a list
    of your own that the groups do not know make a group of their own.

    Args:
        clip_id: Id of the clip; with the seed of the config the only source of chance.
        config: The list, how many names to draw, the seed.

    Returns:
        `name_choices` different names, or all of them if the list is shorter.
    """
    rng = clip_rng(clip_id, "names", config.seed)
    use = {name: group for group, names in name_groups().items() for name in names}
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(config.names or bundled_names()):
        groups.setdefault(use.get(name, "unstated"), []).append(name)
    decks = [[deck[int(index)] for index in rng.permutation(len(deck))] for deck in groups.values()]
    decks = [decks[int(index)] for index in rng.permutation(len(decks))]
    chosen: list[str] = []
    while len(chosen) < config.name_choices and any(decks):
        chosen += [deck.pop() for deck in decks if deck]
    return tuple(chosen[: config.name_choices])
