"""Other systems under the same scorecard: words and pictures in, a picture out."""

from visavis.evaluation.systems.system import SYSTEMS, System, open_system

__all__ = ["SYSTEMS", "System", "open_system"]
