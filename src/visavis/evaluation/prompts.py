"""The words of `prompts.yaml` that a model is tried with, beside those of the data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from visavis.errors import VisavisError

NAME = "{name}"


@dataclass(frozen=True)
class Prompts:
    """Words for one world of pictures.

    Attributes:
        again: Requests for a person once more, each with the place `{name}`.
        groups: Captions by group.
    """

    again: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]


@cache
def load_prompts(name: str) -> Prompts:
    """Returns the prompts of a world.

    Args:
        name: Its key in `prompts.yaml`, as `evaluate.prompt_set` gives it.

    Raises:
        VisavisError: If there is no such world.
    """
    sets = yaml.safe_load((resources.files("visavis.evaluation") / "prompts.yaml").read_text())
    if name not in sets:
        raise VisavisError(
            f"evaluate.prompt_set: there are no prompts named {name!r}", fix=f"take one of {', '.join(sets)}"
        )
    found = sets[name]
    groups = {group: tuple(captions) for group, captions in found["groups"].items()}
    return Prompts(tuple(found["again"]), groups)
