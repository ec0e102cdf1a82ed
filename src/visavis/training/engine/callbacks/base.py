"""What a callback is given after every step."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Moment:
    """The end of a step.

    Attributes:
        done: Steps done.
        steps: Steps in all.
        values: Figures of this step, over all processes.
        tokens: Tokens that the whole step computed; 0 if the task does not tell.
        logged: Means since the last logged point, at a step where there is a point; callbacks add to it in their order.
        stop: Set by a callback to end the stage here.
    """

    done: int
    steps: int
    values: dict[str, float]
    tokens: float = 0.0
    logged: dict[str, float] = field(default_factory=dict)
    stop: bool = False


class Callback:
    """Looks on; a subclass overrides what it needs."""

    def after_step(self, moment: Moment) -> None:
        """Called after every step, in the order in which callbacks were given."""

    def state_dict(self) -> dict[str, float]:
        """Returns what a checkpoint keeps."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Takes back what `state_dict` gave."""
