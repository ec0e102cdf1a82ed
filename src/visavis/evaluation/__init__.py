"""Scoring a model's pictures: identity, right person, alignment, reconstruction; report and claims.

Pure functions over pictures and numbers; the code that runs the model, and the tracker, are elsewhere.
"""

from visavis.evaluation.config import EvaluateConfig
from visavis.evaluation.evaluate import compare, evaluate
from visavis.evaluation.intervals import Figure
from visavis.evaluation.items import (
    FirstRoundItem,
    PromptedItem,
    ReconstructionItem,
    RetentionItem,
    RoundItem,
    SingleRoundItem,
    choose,
)
from visavis.evaluation.labels import scorecard_table
from visavis.evaluation.scorecard import Scorecard, number_at

__all__ = [
    "EvaluateConfig",
    "Figure",
    "FirstRoundItem",
    "PromptedItem",
    "ReconstructionItem",
    "RetentionItem",
    "RoundItem",
    "Scorecard",
    "SingleRoundItem",
    "choose",
    "compare",
    "evaluate",
    "number_at",
    "scorecard_table",
]
