"""What a data set says of a person in words: attributes and their values, by the words of `attributes.yaml`.

Nothing but the words counts. Where they do not tell of an attribute, its value is `untold`, which is not the same as
somebody who lacks it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

import yaml

UNTOLD = "untold"


def attributes_of(description: str) -> dict[str, str]:
    """Returns the value of each attribute; nothing at all for a person of whom nothing is said.

    Args:
        description: All that the data set says of one person, such as "a person with a red bun and round glasses".
    """
    if not description:
        return {}
    return {
        attribute: next((value for value, words in values.items() if words.search(description)), UNTOLD)
        for attribute, values in _known().items()
    }


@cache
def _known() -> Mapping[str, Mapping[str, re.Pattern[str]]]:
    """Returns attribute to value to the words that tell of it."""
    content = yaml.safe_load((resources.files("visavis.evaluation") / "attributes.yaml").read_text())
    return {
        attribute: {
            value: re.compile(
                rf"\b(?:{facts.get('around', '{word}').replace('{word}', f'(?:{words})')})\b", re.IGNORECASE
            )
            for value, words in facts["values"].items()
        }
        for attribute, facts in content.items()
    }
