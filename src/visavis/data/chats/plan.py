"""The reply that says what is painted before it is: where each of two people stands, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence

from visavis.data.config import Prompts
from visavis.data.describing.naming import SIDES


def plan(
    prompts: Prompts, phrases: Sequence[Sequence[str]], used: Sequence[Sequence[str]], order: Sequence[int]
) -> str:
    """Returns the reply for two people; index 0 is the left one.

    A model of images regresses, so what the words leave open it paints as the mean: without sides, both people get the
    mean of both. The plan closes what it can in the fewest words. It goes through the people in the order of the
    caption, so that most of it can be copied; of each it repeats what the caption says, and adds the first and the last
    that was seen: captioners begin with what strikes most and end with the clothes.

    Args:
        prompts: Wording.
        phrases: All that was seen of each person.
        used: What the caption says of each.
        order: The people in the order of the caption.
    """
    clauses = []
    for person in order:
        seen = phrases[person]
        looks = dict.fromkeys([*used[person], *seen[:1], *seen[-1:]])
        clauses.append(f"{SIDES[person]} {' and '.join(looks)}".rstrip())
    return prompts.plan.replace("{people}", ", ".join(clauses))
