"""What a recipe takes on large machines: memory, time and storage, from the shapes of the models."""

from visavis.launch.scale.costs import GPUS, Assumptions
from visavis.launch.scale.page import scale_page

__all__ = ["GPUS", "Assumptions", "scale_page"]
