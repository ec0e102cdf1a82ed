"""The one training loop and what it is told to train on."""

from visavis.training.engine.callbacks import Log
from visavis.training.engine.loop import CHECKPOINTS, train
from visavis.training.engine.preemption import RESUME_ME, Preempted
from visavis.training.engine.schedule import learning_rate, step_rng
from visavis.training.engine.task import Task, Totals

__all__ = [
    "CHECKPOINTS",
    "RESUME_ME",
    "Log",
    "Preempted",
    "Task",
    "Totals",
    "learning_rate",
    "step_rng",
    "train",
]
