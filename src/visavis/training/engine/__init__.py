"""The one training loop and what it is told to train on."""

from visavis.training.engine.loop import CHECKPOINT, Log, learning_rate, step_rng, train
from visavis.training.engine.task import Task, Totals

__all__ = ["CHECKPOINT", "Log", "Task", "Totals", "learning_rate", "step_rng", "train"]
