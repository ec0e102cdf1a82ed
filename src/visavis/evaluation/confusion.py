"""Whom do the close-ups show: the person asked for, the other one of the chat, neither, or no face at all?

A close-up shows the more similar of the two if that similarity reaches `same_person`, else neither. So these figures
tell mixing up two people from losing the face, which the share of right close-ups does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, get_args

from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.intervals import Figure, wilson

Shown = Literal["asked_person", "other_person", "neither", "no_face"]
_SIDES = ("left", "right")


class _Score(Protocol):
    """What is read of a close-up's score."""

    @property
    def cluster(self) -> str: ...
    @property
    def shown(self) -> Shown: ...
    @property
    def asked_side(self) -> str: ...


def shown_person(to_asked: float | None, to_other: float | None, config: EvaluateConfig) -> Shown:
    """Returns whom a close-up shows.

    Args:
        to_asked: ArcFace cosine to the person asked for; None if a face was not found.
        to_other: The same to the other person of the chat.
        config: The cosine from which a face counts as somebody's.
    """
    if to_asked is None or to_other is None:
        return "no_face"
    if max(to_asked, to_other) < config.same_person:
        return "neither"
    return "asked_person" if to_asked > to_other else "other_person"


def summarise_confusion(scores: Sequence[_Score]) -> dict[str, Mapping[str, Figure | Mapping[str, Figure]]]:
    """Returns the shares of close-ups by whom they show, in all and by where the person asked for stood in round 1.

    Args:
        scores: Close-ups whose true ones both show a face.

    Returns:
        `shown`: one figure for each of `Shown`; `confusion`: for `asked_left` and `asked_right` the shares of
        `shown_left`, `shown_right`, `neither` and `no_face`. The shares of a row sum to 1.
    """
    confusion = {}
    for side, other in (_SIDES, _SIDES[::-1]):
        row = _shares([score for score in scores if score.asked_side == side])
        confusion[f"asked_{side}"] = {
            f"shown_{side}": row["asked_person"],
            f"shown_{other}": row["other_person"],
            "neither": row["neither"],
            "no_face": row["no_face"],
        }
    return {"shown": _shares(scores), "confusion": confusion}


def _shares(scores: Sequence[_Score]) -> dict[str, Figure]:
    clusters = [score.cluster for score in scores]
    return {
        name: wilson([score.shown == name for score in scores], clusters=clusters) for name in get_args(Shown)
    }
