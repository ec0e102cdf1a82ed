"""What looks on while a stage is trained; one concern a file."""

from visavis.training.engine.callbacks.base import Callback, Moment
from visavis.training.engine.callbacks.early_stop import EarlyStop
from visavis.training.engine.callbacks.memory import Memory
from visavis.training.engine.callbacks.metrics import Log, Metrics
from visavis.training.engine.callbacks.progress import Progress
from visavis.training.engine.callbacks.samples import Samples
from visavis.training.engine.callbacks.speed import Speed

__all__ = ["Callback", "EarlyStop", "Log", "Memory", "Metrics", "Moment", "Progress", "Samples", "Speed"]
