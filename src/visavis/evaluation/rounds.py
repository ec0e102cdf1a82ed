"""Rounds 2 and 3: does "a close-up photo of Olivia" show Olivia, and not the other person of the chat?

A close-up is right if its face is more similar to the true close-up of the person asked for than to that of
the other person of the same chat; guessing reaches 0.5. A close-up without a face is wrong. As a second
opinion that needs no face detector, the nearest true close-up in pixels (and in image tokens) is reported
apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from visavis.evaluation.attributes import attributes_of
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.confusion import Shown, shown_person
from visavis.evaluation.faces import Embedding, FaceFinder, embed_faces, embed_pairs, similarity
from visavis.evaluation.identity import copy_paste
from visavis.evaluation.intervals import Figure, bootstrap_mean, paired_difference, wilson
from visavis.evaluation.items import Picture, RoundItem
from visavis.evaluation.slices import Sliced, summarise_attributes

CHANCE = 0.5


@dataclass(frozen=True)
class RoundScore:
    """What was measured on one close-up round.

    Attributes:
        item_id: Chat and round.
        cluster: Rounds that may depend on each other.
        scorable: Whether both true close-ups show a face that the detector finds.
        detected: Whether the generated close-up shows a face.
        to_asked: ArcFace similarity to the person asked for.
        to_other: ArcFace similarity to the other person.
        right: Whether the person asked for is the more similar one.
        right_by_pixels: Whether the true close-up of that person is the nearer one in pixels.
        right_by_tokens: The same in image tokens; None if the item holds none.
        shown: Whom the close-up shows; see `visavis.evaluation.confusion`.
        asked_side: As in the item.
        copy_paste: Above 0: nearer to the face in the picture of round 1 than to the true close-up; None if the item
            holds no such picture, or not exactly two faces are found there.
        slices: Names of the slices that the round belongs to.
        person: Who is asked for.
        attributes: What the data set says of that person; see `visavis.evaluation.attributes`.
        history: As in the item.
    """

    item_id: str
    cluster: str
    scorable: bool
    detected: bool
    to_asked: float | None
    to_other: float | None
    right: bool
    right_by_pixels: bool
    right_by_tokens: bool | None
    shown: Shown
    asked_side: str
    copy_paste: float | None
    slices: tuple[str, ...]
    person: str
    attributes: dict[str, str]
    history: str


def score_rounds(items: Sequence[RoundItem], faces: FaceFinder, config: EvaluateConfig) -> list[RoundScore]:
    """Embeds all close-ups and assigns each generated one to the more similar of the two people."""
    pictures = [picture for item in items for picture in (item.generated, item.asked_true, item.other_true)]
    found = embed_faces(pictures, faces, paddings=config.det_paddings, several=config.several_faces)
    seen = _faces_of_round_1(items, faces, config)
    scores = []
    for index, item in enumerate(items):
        made, asked, other = found[3 * index : 3 * index + 3]
        to_asked, to_other = similarity(made, asked), similarity(made, other)
        scores.append(
            RoundScore(
                item_id=item.item_id,
                cluster=item.cluster,
                scorable=asked is not None and other is not None,
                detected=made is not None,
                to_asked=to_asked,
                to_other=to_other,
                right=to_asked is not None and to_other is not None and to_asked > to_other,
                right_by_pixels=_nearer_in_pixels(item.generated, item.asked_true, item.other_true),
                right_by_tokens=_nearer_in_tokens(item),
                shown=shown_person(to_asked, to_other, config),
                asked_side=item.asked_side,
                copy_paste=copy_paste(made, asked, seen.get(index)),
                slices=slices_of(item),
                person=item.person,
                attributes=attributes_of(item.description),
                history=item.history,
            )
        )
    return scores


def slices_of(item: RoundItem) -> tuple[str, ...]:
    """Returns the names of the slices that a round belongs to."""
    names = [
        "described" if item.described else "undescribed",
        f"asked_{item.asked_side}",
        "left_named_first" if item.left_first else "right_named_first",
        "asked_named_first" if (item.asked_side == "left") == item.left_first else "asked_named_second",
        f"round_{item.round}",
    ]
    if item.side_told is not None:
        names.append("side_told" if item.side_told else "side_untold")
    if not item.described and item.side_told is False and item.other_described is False:
        names.append("nobody_described")
    return tuple(names)


def summarise_rounds(
    scores: Sequence[RoundScore], ablated: Sequence[RoundScore], config: EvaluateConfig
) -> dict[str, Figure]:
    """Returns the figures of the scorecard's section `rounds`, slices apart (`summarise_slices`).

    The headline rests on chats that hold the true first frame; with the model's own round-1 picture, whose
    people are nobody's truth, accuracy is reported as `right_person_accuracy_own_picture`.

    Args:
        scores: The rounds.
        ablated: The same rounds after the round-1 picture was replaced by that of another chat.
        config: Policies and bootstrap settings.
    """
    usable = [score for score in scores if score.scorable and score.history == "given"]
    own = [score for score in scores if score.scorable and score.history == "own"]
    blind = [score for score in ablated if score.scorable]
    judged = usable if config.no_face == "zero" else [score for score in usable if score.detected]

    def mean(values: Callable[[RoundScore], float]) -> Figure:
        return bootstrap_mean(
            [values(score) for score in judged],
            clusters=[score.cluster for score in judged],
            samples=config.bootstrap_samples,
            seed=config.seed,
        )

    copied = [(score.cluster, score.copy_paste) for score in usable if score.copy_paste is not None]
    with_tokens = [score for score in usable if score.right_by_tokens is not None]
    figures = {
        "right_person_accuracy": accuracy(usable),
        "right_person_accuracy_undescribed": accuracy(_slice(usable, "undescribed")),
        "right_person_accuracy_pixels": accuracy(usable, lambda score: score.right_by_pixels),
        "image_ablation": accuracy(blind),
        "image_ablation_undescribed": accuracy(_slice(blind, "undescribed")),
        "image_ablation_drop": _drop(usable, blind, config),
        "arcface_to_asked": mean(lambda score: score.to_asked or 0.0),
        "arcface_to_other": mean(lambda score: score.to_other or 0.0),
        "margin": mean(lambda score: (score.to_asked or 0.0) - (score.to_other or 0.0)),
        "copy_paste": bootstrap_mean(
            [value for _, value in copied],
            clusters=[cluster for cluster, _ in copied],
            samples=config.bootstrap_samples,
            seed=config.seed,
        ),
        "detection_rate": wilson(
            [score.detected for score in usable], clusters=[score.cluster for score in usable]
        ),
    }
    if with_tokens:
        figures["right_person_accuracy_tokens"] = accuracy(
            with_tokens, lambda score: bool(score.right_by_tokens)
        )
    if own:
        figures["right_person_accuracy_own_picture"] = accuracy(own)
    return figures


def summarise_slices(scores: Sequence[RoundScore]) -> dict[str, Figure]:
    """Returns right-person accuracy of each slice that has rounds."""
    usable = [score for score in scores if score.scorable and score.history == "given"]
    names = sorted({name for score in usable for name in score.slices})
    return {name: accuracy(_slice(usable, name)) for name in names}


def summarise_round_slices(
    scores: Sequence[RoundScore], config: EvaluateConfig
) -> dict[str, Mapping[str, Figure | Mapping[str, Figure]]]:
    """Returns `slices`, right-person accuracy by kind of round and by what is said of the person, and `gap`."""

    def share(rows: Sequence[Sliced]) -> Figure:
        return wilson([row.value > 0 for row in rows], clusters=[row.cluster for row in rows], chance=CHANCE)

    usable = [score for score in scores if score.scorable and score.history == "given"]
    rows = [Sliced(s.person, s.cluster, float(s.right), s.attributes) for s in usable]
    slices, gaps = summarise_attributes(rows, share, config)
    return {"slices": {**summarise_slices(scores), **slices}, "gap": gaps}


def accuracy(
    scores: Sequence[RoundScore], right: Callable[[RoundScore], bool] = lambda score: score.right
) -> Figure:
    """Returns the share of right rounds with its clustered Wilson interval."""
    return wilson(
        [right(score) for score in scores], clusters=[score.cluster for score in scores], chance=CHANCE
    )


def _slice(scores: Sequence[RoundScore], name: str) -> list[RoundScore]:
    return [score for score in scores if name in score.slices]


def _drop(scores: Sequence[RoundScore], ablated: Sequence[RoundScore], config: EvaluateConfig) -> Figure:
    """Returns how much accuracy is lost with another chat's picture, over the rounds scored both ways."""
    blind = {score.item_id: score.right for score in ablated}
    both = [score for score in scores if score.item_id in blind]
    return paired_difference(
        [float(score.right) for score in both],
        [float(blind[score.item_id]) for score in both],
        clusters=[score.cluster for score in both],
        samples=config.bootstrap_samples,
        seed=config.seed,
    )


def _faces_of_round_1(
    items: Sequence[RoundItem], faces: FaceFinder, config: EvaluateConfig
) -> dict[int, Embedding]:
    """Returns, by index of the item, the face in the picture of round 1 of the person asked for."""
    held = [(i, item, item.first_picture) for i, item in enumerate(items) if item.first_picture is not None]
    pairs = embed_pairs([picture for _, _, picture in held], faces, paddings=config.det_paddings)
    return {
        index: pair[item.asked_side == "right"]
        for (index, item, _), pair in zip(held, pairs, strict=True)
        if pair is not None
    }


def _nearer_in_pixels(generated: Picture, asked: Picture, other: Picture) -> bool:
    size = (generated.shape[1], generated.shape[0])

    def distance(true: Picture) -> float:
        image = Image.fromarray(true)
        if image.size != size:
            image = image.resize(
                size, Image.Resampling.BOX if image.width > size[0] else Image.Resampling.BICUBIC
            )
        return float(np.mean((np.asarray(image, dtype=np.float32) - generated.astype(np.float32)) ** 2))

    return distance(asked) < distance(other)


def _nearer_in_tokens(item: RoundItem) -> bool | None:
    if item.generated_tokens is None or item.asked_tokens is None or item.other_tokens is None:
        return None
    made = np.asarray(item.generated_tokens, dtype=np.float32)
    to_asked = np.mean((made - np.asarray(item.asked_tokens, dtype=np.float32)) ** 2)
    to_other = np.mean((made - np.asarray(item.other_tokens, dtype=np.float32)) ** 2)
    return bool(to_asked < to_other)
