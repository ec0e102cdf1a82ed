"""From scorecard to champion: the gate, and model versions with their aliases."""

from visavis.registry.config import GateConfig, GateRule, RegisterConfig, read_rules
from visavis.registry.gate import Decision, Rival, RuleResult, decide

__all__ = [
    "Decision",
    "GateConfig",
    "GateRule",
    "RegisterConfig",
    "Rival",
    "RuleResult",
    "decide",
    "read_rules",
]
