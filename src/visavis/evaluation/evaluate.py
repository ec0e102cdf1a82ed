"""One call from items to scorecard, and the paired comparison of two models on the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from visavis.evaluation.alignment import Clip, score_alignment, summarise_alignment
from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.confusion import summarise_confusion
from visavis.evaluation.distances import clip_distances
from visavis.evaluation.faces import FaceFinder
from visavis.evaluation.groups import score_prompted, summarise_prompted
from visavis.evaluation.identity import (
    score_single_round,
    summarise_identity_slices,
    summarise_single_round,
)
from visavis.evaluation.intervals import Figure, paired_difference
from visavis.evaluation.items import (
    FirstRoundItem,
    PromptedItem,
    ReconstructionItem,
    RetentionItem,
    RoundItem,
    SingleRoundItem,
)
from visavis.evaluation.reconstruction import score_reconstruction, summarise_reconstruction
from visavis.evaluation.retention import score_retention, summarise_retention
from visavis.evaluation.rounds import score_rounds, summarise_round_slices, summarise_rounds
from visavis.evaluation.scorecard import Scorecard

# Which per-item score stands behind which figure, for paired comparisons.
_COMPARED = {
    "reconstruction.psnr_db": ("reconstruction", "psnr"),
    "reconstruction.psnr_db_served": ("reconstruction", "psnr_served"),
    "identity.arcface_single_round": ("single_round", "to_source"),
    "identity.arcface_to_target": ("single_round", "to_target"),
    "alignment.clip_score": ("alignment", "clip"),
    "rounds.right_person_accuracy": ("rounds", "right"),
}


def evaluate(
    *,
    single_round: Sequence[SingleRoundItem],
    rounds: Sequence[RoundItem],
    ablation: Sequence[RoundItem] = (),
    reconstruction: Sequence[ReconstructionItem] = (),
    first_rounds: Sequence[FirstRoundItem] = (),
    retention: Sequence[RetentionItem] = (),
    prompted: Sequence[PromptedItem] = (),
    faces: FaceFinder,
    clip: tuple[Any, Any],
    config: EvaluateConfig,
    about: Mapping[str, object] | None = None,
) -> Scorecard:
    """Scores a model's pictures.

    Args:
        single_round: Personalised pictures.
        rounds: Close-ups of rounds 2 and 3.
        ablation: The same rounds, generated after the round-1 picture was replaced by that of another chat;
            their `chat_id` and `round` tell which round they repeat.
        reconstruction: Pictures through encoder and detokenizer.
        first_rounds: Pictures made from words alone.
        retention: Long chats about one person.
        prompted: Personalised pictures with the groups of prompts.
        faces: The prepared face analysis.
        clip: CLIP model and processor, as `visavis.packs.load_clip` returns them.
        config: Policies, bootstrap settings and seed.
        about: Facts on the model for the scorecard.
    """
    encoder = Clip(*clip, batch_size=config.batch_size)
    identity = score_single_round(single_round, faces, config)
    closeups = score_rounds(rounds, faces, config)
    ablated = score_rounds(ablation, faces, config)
    alignment = score_alignment(single_round, encoder, config)
    first = score_alignment(first_rounds, encoder, config)
    kept = score_retention(retention, faces, config)
    grouped = score_prompted(prompted, faces, encoder, config)
    rebuilt = score_reconstruction(reconstruction, faces, config)
    alignment_figures = summarise_alignment(alignment, config)
    if first:
        alignment_figures |= summarise_alignment(first, config, suffix="_round_1")
    return Scorecard(
        sections={
            "reconstruction": {
                **summarise_reconstruction(rebuilt, config),
                **_distances(reconstruction, [score.cluster for score in rebuilt], encoder, config),
            },
            "identity": {
                **summarise_single_round(identity, config),
                **summarise_identity_slices(identity, config),
            },
            "alignment": alignment_figures,
            "rounds": {
                **summarise_rounds(closeups, ablated, config),
                **summarise_confusion([s for s in closeups if s.scorable and s.history == "given"]),
                **summarise_round_slices(closeups, config),
            },
            "retention": summarise_retention(kept, config),
            "groups": summarise_prompted(grouped, config),
        },
        counts={
            "single_round": len(identity),
            "single_round_unscorable": sum(not score.scorable for score in identity),
            "people": len({item.person_id for item in single_round}),
            "rounds": len(closeups),
            "rounds_unscorable": sum(not score.scorable for score in closeups),
            "chats": len({item.chat_id for item in rounds}),
            "ablation": len(ablated),
            "reconstruction": len(rebuilt),
            "first_rounds": len(first),
            "retention": len(kept),
            "retention_unscorable": sum(not score.scorable for score in kept),
            "prompted": len(grouped),
            "captions_truncated": encoder.truncated,
        },
        seed=config.seed,
        policies=config.policies(),
        about=dict(about or {}),
        items={
            "single_round": [asdict(score) for score in identity],
            "rounds": [asdict(score) for score in closeups],
            "ablation": [asdict(score) for score in ablated],
            "alignment": [asdict(score) for score in alignment],
            "first_rounds": [asdict(score) for score in first],
            "retention": [asdict(score) for score in kept],
            "prompted": [asdict(score) for score in grouped],
            "reconstruction": [asdict(score) for score in rebuilt],
        },
    )


def _distances(
    items: Sequence[ReconstructionItem], clusters: Sequence[str], encoder: Clip, config: EvaluateConfig
) -> dict[str, Figure]:
    """Returns how far the reconstructions lie from the true pictures as a set."""
    true = encoder.images([item.original for item in items], unit=False)
    made = encoder.images([item.after for item in items], unit=False)
    return clip_distances(true, made, clusters, config)


def compare(
    candidate: Mapping[str, list[dict[str, Any]]],
    champion: Mapping[str, list[dict[str, Any]]],
    config: EvaluateConfig,
) -> dict[str, Figure]:
    """Returns candidate minus champion for the main figures, paired on the items that both have scored.

    Args:
        candidate: `Scorecard.items` of the candidate.
        champion: `Scorecard.items` of the champion, on the same data.
        config: Bootstrap settings; under the policy "zero" a picture without a face counts as similarity 0.
    """
    figures = {}
    for path, (kind, name) in _COMPARED.items():
        ours, theirs = _scores(candidate, kind, name, config), _scores(champion, kind, name, config)
        both = sorted(ours.keys() & theirs.keys())
        figures[path] = paired_difference(
            [ours[key][0] for key in both],
            [theirs[key][0] for key in both],
            clusters=[ours[key][1] for key in both],
            samples=config.bootstrap_samples,
            seed=config.seed,
        )
    return figures


def _scores(
    items: Mapping[str, list[dict[str, Any]]], kind: str, name: str, config: EvaluateConfig
) -> dict[str, tuple[float, str]]:
    """Returns value and cluster of each item that counts under the config's policies."""
    rows: dict[str, tuple[float, str]] = {}
    for row in items.get(kind, []):
        if not row.get("scorable", True) or row.get("history", "given") != "given":
            continue
        value = row[name]
        if value is None:
            if kind == "reconstruction" or config.no_face == "skip":
                continue
            value = 0.0
        rows[row["item_id"]] = (float(value), row["cluster"])
    return rows
