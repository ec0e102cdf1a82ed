"""The one training loop and what it is told to train on."""

from visavis.training.engine.callbacks import Log
from visavis.training.engine.loop import CHECKPOINTS, train
from visavis.training.engine.preemption import RESUME_ME, Preempted
from visavis.training.engine.schedule import learning_rate, step_rng
from visavis.training.engine.task import Task, Totals
from visavis.training.engine.team import ending_at_once

__all__ = [
    "CHECKPOINTS",
    "RESUME_ME",
    "Log",
    "Preempted",
    "Task",
    "Totals",
    "ending_at_once",
    "learning_rate",
    "step_rng",
    "train",
]
