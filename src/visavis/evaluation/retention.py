"""Does a face stay over a long chat, when the same person is asked for again and again in other words?

A chat begins with a true picture of two people; each later close-up is the model's own, and is what the next one is
made from. Every close-up is compared with the person's face in the picture of round 1 (ArcFace cosine), and with the
first close-up: a model may wander off from the person, or settle on somebody else and stay there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.faces import FaceFinder, embed_faces, embed_pairs, similarity
from visavis.evaluation.intervals import Figure, bootstrap_mean, wilson
from visavis.evaluation.items import RetentionItem

FIRST_ROUND = 2
"""Round of the first close-up."""


@dataclass(frozen=True)
class RetentionScore:
    """What was measured on one chat.

    Attributes:
        item_id: The chat.
        cluster: Chats that may depend on each other.
        scorable: Whether the picture of round 1 shows exactly two faces, so that the side tells whose is whose.
        to_round_1: ArcFace cosine of each close-up, from round 2 on, to the person's face in round 1; None without a
            face.
        to_first_close_up: The same to the close-up of round 2, from round 3 on.
    """

    item_id: str
    cluster: str
    scorable: bool
    to_round_1: tuple[float | None, ...]
    to_first_close_up: tuple[float | None, ...]


def score_retention(
    items: Sequence[RetentionItem], faces: FaceFinder, config: EvaluateConfig
) -> list[RetentionScore]:
    """Embeds all close-ups and compares them; a round that was answered without a picture has no face."""
    pairs = embed_pairs([item.first_picture for item in items], faces, paddings=config.det_paddings)
    shown = [picture for item in items for picture in item.close_ups if picture is not None]
    found = iter(embed_faces(shown, faces, paddings=config.det_paddings, several=config.several_faces))
    scores = []
    for item, pair in zip(items, pairs, strict=True):
        own = None if pair is None else pair[item.asked_side == "right"]
        made = [None if picture is None else next(found) for picture in item.close_ups]
        scores.append(
            RetentionScore(
                item_id=item.chat_id,
                cluster=item.cluster_id or item.chat_id,
                scorable=own is not None,
                to_round_1=tuple(similarity(close_up, own) for close_up in made),
                to_first_close_up=tuple(similarity(close_up, made[0]) for close_up in made[1:]),
            )
        )
    return scores


def summarise_retention(
    scores: Sequence[RetentionScore], config: EvaluateConfig
) -> dict[str, Figure | Mapping[str, Figure]]:
    """Returns the figures of the scorecard's section `retention`; intervals resample chats that share people.

    Under the policy "zero" a close-up without a face has similarity 0, and so counts in the slope; under "skip" it is
    left out.

    Returns:
        `round_2` to the last of `retention_rounds`; `slope`, the mean over chats of the change of cosine per round
        (least squares; below 0 the face is lost); `detection_rate` of all close-ups; and `to_first_close_up`, by round.
    """
    usable = [score for score in scores if score.scorable]

    def mean(rows: Sequence[tuple[str, float | None]]) -> Figure:
        return bootstrap_mean(
            [value or 0.0 for _, value in rows],
            clusters=[cluster for cluster, _ in rows],
            samples=config.bootstrap_samples,
            seed=config.seed,
        )

    def counted(rows: Sequence[tuple[str, float | None]]) -> list[tuple[str, float | None]]:
        return [row for row in rows if row[1] is not None or config.no_face == "zero"]

    def by_round(chats: Sequence[tuple[str, tuple[float | None, ...]]], first: int) -> dict[str, Figure]:
        places = range(config.retention_rounds + 1 - first)
        rows = [[(cluster, row[place]) for cluster, row in chats if place < len(row)] for place in places]
        return {f"round_{first + place}": mean(counted(rows[place])) for place in places}

    slopes = [(score.cluster, slope(score.to_round_1, config)) for score in usable]
    seen = [(score.cluster, cosine is not None) for score in usable for cosine in score.to_round_1]
    return {
        **by_round([(score.cluster, score.to_round_1) for score in usable], FIRST_ROUND),
        "slope": mean([row for row in slopes if row[1] is not None]),
        "detection_rate": wilson([face for _, face in seen], clusters=[cluster for cluster, _ in seen]),
        "to_first_close_up": by_round(
            [(score.cluster, score.to_first_close_up) for score in usable], FIRST_ROUND + 1
        ),
    }


def slope(cosines: Sequence[float | None], config: EvaluateConfig) -> float | None:
    """Returns the change of the cosine per round of one chat, None with fewer than two rounds to fit."""
    if config.no_face == "zero":
        cosines = [cosine or 0.0 for cosine in cosines]
    points = [(number, cosine) for number, cosine in enumerate(cosines) if cosine is not None]
    if len(points) < 2:
        return None
    numbers, values = zip(*points, strict=True)
    return float(np.polyfit(np.asarray(numbers), np.asarray(values), deg=1)[0])
