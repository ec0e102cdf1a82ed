"""Does the picture show what the words say? CLIP-T, CLIPScore, and caption retrieval.

Two scales go by similar names. `clip_score` is CLIP-T: 100 times the cosine of picture and caption, without a prompt
prefix and without clipping at 0 (DreamBooth, the scale of the paper's 28.59). `clipscore_hessel` is 2.5 times the
cosine, at least 0 (Hessel et al. 2021, "CLIPScore"), here without its prefix "A photo depicts", which a CLIP of
another world does not know. Both compare only with scores of the same CLIP model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.intervals import Figure, bootstrap_mean, wilson
from visavis.evaluation.items import FirstRoundItem, Picture, SingleRoundItem

HESSEL_WEIGHT = 2.5


@dataclass(frozen=True)
class AlignmentScore:
    """What was measured on one picture and its caption.

    Attributes:
        item_id: The item.
        cluster: Items that may depend on each other.
        clip: 100 times the cosine of the generated picture and its caption.
        clip_true: The same for the true picture, None if there is none.
        retrieved: Whether the caption beats all its distractors; None if there are too few other captions.
        candidates: Captions compared, the right one included.
    """

    item_id: str
    cluster: str
    clip: float
    clip_true: float | None
    retrieved: bool | None
    candidates: int


class Clip:
    """Embeds pictures and captions with a transformers `CLIPModel` and its processor.

    Args:
        model: A `transformers.CLIPModel`.
        processor: Its `CLIPProcessor`.
        batch_size: Items per forward pass.
    """

    def __init__(self, model: Any, processor: Any, batch_size: int = 64) -> None:
        self._model = model.eval()
        self._processor = processor
        self._batch = batch_size
        self._most_tokens = int(model.config.text_config.max_position_embeddings)
        self.truncated = 0
        """Captions that were longer than the model reads."""

    def images(self, pictures: Sequence[Picture], *, unit: bool = True) -> NDArray[np.float32]:
        """Returns features [N, d] of uint8 RGB pictures, of unit length unless `unit` is False."""

        def features(batch: Sequence[Picture]) -> Any:
            inputs = self._processor(images=[Image.fromarray(p) for p in batch], return_tensors="pt")
            return self._model.get_image_features(pixel_values=inputs["pixel_values"].to(self._model.device))

        return self._run(pictures, features, unit)

    def texts(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Returns unit-length features [N, d] of captions, cut at the model's longest input."""

        def features(batch: Sequence[str]) -> Any:
            # one token more than the model reads tells which captions are cut
            rows = self._processor(text=list(batch), truncation=True, max_length=self._most_tokens + 1)
            self.truncated += sum(len(row) > self._most_tokens for row in rows["input_ids"])
            inputs = self._processor(
                text=list(batch),
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=self._most_tokens,
            ).to(self._model.device)
            return self._model.get_text_features(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            )

        return self._run(captions, features)

    def _run(self, values: Sequence[Any], features: Any, unit: bool = True) -> NDArray[np.float32]:
        import torch

        rows = []
        with torch.inference_mode():
            for start in range(0, len(values), self._batch):
                out = features(values[start : start + self._batch])
                # transformers 5 returns an output object with the projected features as its pooler_output
                rows.append(out if isinstance(out, torch.Tensor) else out.pooler_output)
        if not rows:
            return np.zeros((0, 1), dtype=np.float32)
        stacked = torch.cat(rows).float()
        return (torch.nn.functional.normalize(stacked, dim=-1) if unit else stacked).cpu().numpy()


def score_alignment(
    items: Sequence[SingleRoundItem | FirstRoundItem], clip: Clip, config: EvaluateConfig
) -> list[AlignmentScore]:
    """Scores each generated picture with its caption; equal captions are embedded once.

    The distractors of an item are drawn, by the config's seed, from the other captions of the same list.
    """
    captions = sorted({item.caption for item in items})
    texts = dict(zip(captions, clip.texts(captions), strict=True))
    made = clip.images([item.generated for item in items])
    truths = [item.target if isinstance(item, SingleRoundItem) else item.true for item in items]
    features = iter(clip.images([truth for truth in truths if truth is not None]))
    true = [None if truth is None else next(features) for truth in truths]
    scores = []
    for index, item in enumerate(items):
        text = texts[item.caption]
        others = _distractors(item.item_id, item.caption, captions, config)
        retrieved = None
        if others:
            best = max(float(texts[other] @ made[index]) for other in others)
            retrieved = bool(float(text @ made[index]) > best)
        reference = true[index]
        scores.append(
            AlignmentScore(
                item_id=item.item_id,
                cluster=_cluster(item),
                clip=100 * float(text @ made[index]),
                clip_true=None if reference is None else 100 * float(text @ reference),
                retrieved=retrieved,
                candidates=len(others) + 1,
            )
        )
    return scores


def summarise_alignment(
    scores: Sequence[AlignmentScore], config: EvaluateConfig, suffix: str = ""
) -> dict[str, Figure]:
    """Returns the figures of the scorecard's section `alignment`; `suffix` is appended to their names."""

    def mean(rows: Sequence[tuple[str, float]]) -> Figure:
        return bootstrap_mean(
            [value for _, value in rows],
            clusters=[cluster for cluster, _ in rows],
            samples=config.bootstrap_samples,
            seed=config.seed,
        )

    true = [(s.cluster, s.clip_true) for s in scores if s.clip_true is not None]
    compared = [score for score in scores if score.retrieved is not None]
    chance = float(np.mean([1 / score.candidates for score in compared])) if compared else None
    return {
        f"clip_score{suffix}": mean([(s.cluster, s.clip) for s in scores]),
        f"clip_score_true{suffix}": mean(true),
        f"clipscore_hessel{suffix}": mean([(s.cluster, clipscore(s.clip)) for s in scores]),
        f"clipscore_hessel_true{suffix}": mean([(cluster, clipscore(clip)) for cluster, clip in true]),
        f"caption_retrieval{suffix}": wilson(
            [bool(s.retrieved) for s in compared], clusters=[s.cluster for s in compared], chance=chance
        ),
    }


def clipscore(clip: float) -> float:
    """Returns Hessel's CLIPScore, in 0..2.5, of a CLIP-T in -100..100."""
    return HESSEL_WEIGHT * max(clip / 100, 0.0)


def _cluster(item: SingleRoundItem | FirstRoundItem) -> str:
    if isinstance(item, SingleRoundItem):
        return item.person_id
    return item.cluster_id or item.item_id


def _distractors(item_id: str, caption: str, captions: Sequence[str], config: EvaluateConfig) -> list[str]:
    """Returns other captions, the same ones for an item whichever model made its picture."""
    others = [other for other in captions if other != caption]
    wanted = config.retrieval_candidates - 1
    if len(others) <= wanted:
        return others
    rng = np.random.default_rng([config.seed, *item_id.encode()])
    return [others[int(index)] for index in rng.choice(len(others), wanted, replace=False)]
