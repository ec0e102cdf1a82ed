"""Single-round identity: is the person in the generated picture the one that was asked for?

Scores are cosines of ArcFace embeddings (unrelated faces lie near 0). The copy-paste figure is that of
WithAnyone (Doby-Xu/WithAnyone): angles to the true target and to the given face, relative to the angle
between those two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from visavis.evaluation.attributes import attributes_of
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.faces import Embedding, FaceFinder, embed_faces, similarity
from visavis.evaluation.intervals import Figure, bootstrap_mean, wilson
from visavis.evaluation.items import SingleRoundItem
from visavis.evaluation.slices import Sliced, summarise_attributes

_SMALLEST_ANGLE = (
    0.05  # radians; below it the target is the given picture and copying cannot be told from success
)


@dataclass(frozen=True)
class SingleRoundScore:
    """What was measured on one item; None where a face that is needed was not found.

    Attributes:
        item_id: The item.
        cluster: The person asked for.
        scorable: Whether the given face was found, so that there is something to compare with.
        detected: Whether the generated picture shows a face.
        to_source: Similarity to the given face.
        to_other: Similarity to other people (mean over them).
        beats_others: Share of those other people to whom the picture is less similar than to its own person.
        to_target: Similarity to the true target.
        real_pair: Similarity of the true target to the given face, the level of real pictures.
        copy_paste: Above 0: nearer to the given picture than to the true target.
        attributes: What the data set says of the person; see `visavis.evaluation.attributes`.
    """

    item_id: str
    cluster: str
    scorable: bool
    detected: bool
    to_source: float | None
    to_other: float | None
    beats_others: float | None
    to_target: float | None
    real_pair: float | None
    copy_paste: float | None
    attributes: dict[str, str]


def score_single_round(
    items: Sequence[SingleRoundItem], faces: FaceFinder, config: EvaluateConfig
) -> list[SingleRoundScore]:
    """Embeds all pictures and compares them, item by item."""

    def embed(pictures: list[np.ndarray]) -> list[Embedding | None]:
        return embed_faces(pictures, faces, paddings=config.det_paddings, several=config.several_faces)

    generated = embed([item.generated for item in items])
    sources = embed([item.source_face for item in items])
    targets = embed([item.target for item in items])
    given = embed([item.other_face for item in items if item.other_face is not None])
    given_others = iter(given)
    scores = []
    for index, item in enumerate(items):
        if item.other_face is not None:
            others = [next(given_others)]
        else:
            others = [
                source
                for other, source in zip(items, sources, strict=True)
                if other.person_id != item.person_id
            ]
        made, source, target = generated[index], sources[index], targets[index]
        own = similarity(made, source)
        to_others = [s for s in (similarity(made, other) for other in others) if s is not None]
        scores.append(
            SingleRoundScore(
                item_id=item.item_id,
                cluster=item.person_id,
                scorable=source is not None,
                detected=made is not None,
                to_source=own,
                to_other=float(np.mean(to_others)) if to_others else None,
                beats_others=_beats(own, to_others),
                to_target=similarity(made, target),
                real_pair=similarity(target, source),
                copy_paste=copy_paste(made, target, source),
                attributes=attributes_of(item.description),
            )
        )
    return scores


def summarise_single_round(scores: Sequence[SingleRoundScore], config: EvaluateConfig) -> dict[str, Figure]:
    """Returns the figures of the scorecard's section `identity`; intervals resample people.

    Items whose given face the detector misses are left out, as nothing can be said on them. Under the policy
    "zero" a generated picture without a face has similarity 0 to everybody (and a margin of 0).
    """
    usable = [score for score in scores if score.scorable]
    judged = usable if config.no_face == "zero" else [score for score in usable if score.detected]
    # An item without other people to compare with has no margin; one without a face has similarity 0 to them.
    compared = [score for score in judged if score.to_other is not None or not score.detected]

    def mean(rows: Sequence[SingleRoundScore], values: Sequence[float | None]) -> Figure:
        return bootstrap_mean(
            [0.0 if value is None else value for value in values],
            clusters=[row.cluster for row in rows],
            samples=config.bootstrap_samples,
            seed=config.seed,
        )

    found = [score for score in usable if score.detected]
    with_target = [score for score in judged if score.to_target is not None or not score.detected]
    pairs = [score for score in usable if score.real_pair is not None]
    copied = [score for score in usable if score.copy_paste is not None]
    return {
        "arcface_single_round": mean(judged, [s.to_source for s in judged]),
        "arcface_single_round_detected": mean(found, [s.to_source for s in found]),
        "arcface_to_other": mean(compared, [s.to_other for s in compared]),
        "margin": mean(compared, [(s.to_source or 0.0) - (s.to_other or 0.0) for s in compared]),
        "closer_than_random_person": mean(compared, [s.beats_others for s in compared]),
        "arcface_to_target": mean(with_target, [s.to_target for s in with_target]),
        "arcface_real_pair": mean(pairs, [s.real_pair for s in pairs]),
        "copy_paste": mean(copied, [s.copy_paste for s in copied]),
        "detection_rate": wilson([s.detected for s in usable], clusters=[s.cluster for s in usable]),
    }


def summarise_identity_slices(
    scores: Sequence[SingleRoundScore], config: EvaluateConfig
) -> dict[str, Mapping[str, Figure | Mapping[str, Figure]]]:
    """Returns `slices`, similarity to the given face by what is said of the person, and `gap` by attribute."""

    def mean(rows: Sequence[Sliced]) -> Figure:
        return bootstrap_mean(
            [row.value for row in rows],
            clusters=[row.cluster for row in rows],
            samples=config.bootstrap_samples,
            seed=config.seed,
        )

    judged = [score for score in scores if score.scorable and (score.detected or config.no_face == "zero")]
    rows = [Sliced(s.cluster, s.cluster, s.to_source or 0.0, s.attributes) for s in judged]
    slices, gaps = summarise_attributes(rows, mean, config)
    return {"slices": slices, "gap": gaps}


def copy_paste(
    generated: Embedding | None, target: Embedding | None, source: Embedding | None
) -> float | None:
    """Returns WithAnyone's copy-paste figure, (angle to target - angle to source) / angle between those two.

    1 means a copy of the given face, -1 means the true target, 0 is as far from both. None if a face is
    missing or target and source are practically the same picture.
    """
    if generated is None or target is None or source is None:
        return None
    between = _angle(target, source)
    if between < _SMALLEST_ANGLE:
        return None
    return (_angle(generated, target) - _angle(generated, source)) / between


def _angle(first: Embedding, second: Embedding) -> float:
    return math.acos(float(np.clip(np.dot(first, second), -1.0, 1.0)))


def _beats(own: float | None, others: Sequence[float]) -> float | None:
    if own is None or not others:
        return None
    return float(np.mean([own > other for other in others]))
