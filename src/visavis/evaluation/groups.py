"""What is kept of a face, and what is shown of the words, by how hard the words are for the face.

A model that copies the face given does well on `easy` prompts only; one that follows words alone loses the face on all.
The paper compares on such prompts by eye (figure 6) and in a study (table 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from visavis.evaluation.alignment import Clip
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.faces import FaceFinder, embed_faces, similarity
from visavis.evaluation.intervals import Figure, bootstrap_mean, wilson
from visavis.evaluation.items import PromptedItem
from visavis.evaluation.prompts import load_prompts


@dataclass(frozen=True)
class PromptedScore:
    """What was measured on one picture.

    Attributes:
        item_id: The picture.
        cluster: The person asked for.
        group: Of the prompt.
        scorable: Whether the given face was found.
        detected: Whether the picture shows a face.
        to_source: ArcFace cosine to the given face.
        clip: 100 times the cosine of picture and prompt (CLIP-T).
    """

    item_id: str
    cluster: str
    group: str
    scorable: bool
    detected: bool
    to_source: float | None
    clip: float


def score_prompted(
    items: Sequence[PromptedItem], faces: FaceFinder, clip: Clip, config: EvaluateConfig
) -> list[PromptedScore]:
    """Compares each picture with the face and with the words that it was made from."""
    pictures = [picture for item in items for picture in (item.generated, item.source_face)]
    found = embed_faces(pictures, faces, paddings=config.det_paddings, several=config.several_faces)
    prompts = sorted({item.prompt for item in items})
    texts = dict(zip(prompts, clip.texts(prompts), strict=True))
    seen = clip.images([item.generated for item in items])
    return [
        PromptedScore(
            item_id=item.item_id,
            cluster=item.person_id,
            group=item.group,
            scorable=source is not None,
            detected=made is not None,
            to_source=similarity(made, source),
            clip=100 * float(texts[item.prompt] @ image),
        )
        for item, made, source, image in zip(items, found[::2], found[1::2], seen, strict=True)
    ]


def summarise_prompted(
    scores: Sequence[PromptedScore], config: EvaluateConfig
) -> dict[str, Mapping[str, Figure]]:
    """Returns for each group of the config's prompt set `arcface`, `clip_t` and `detection_rate`.

    Intervals resample people. Under the policy "zero" a picture without a face has similarity 0.
    """
    return {
        group: _summary([score for score in scores if score.group == group], config)
        for group in load_prompts(config.prompt_set).groups
    }


def _summary(scores: Sequence[PromptedScore], config: EvaluateConfig) -> dict[str, Figure]:
    usable = [score for score in scores if score.scorable]
    judged = usable if config.no_face == "zero" else [score for score in usable if score.detected]

    def mean(rows: Sequence[PromptedScore], values: Sequence[float]) -> Figure:
        return bootstrap_mean(
            values,
            clusters=[row.cluster for row in rows],
            samples=config.bootstrap_samples,
            seed=config.seed,
        )

    return {
        "arcface": mean(judged, [score.to_source or 0.0 for score in judged]),
        "clip_t": mean(scores, [score.clip for score in scores]),
        "detection_rate": wilson(
            [score.detected for score in usable], clusters=[score.cluster for score in usable]
        ),
    }
