"""From scorecard to champion: the gate, and model versions with their aliases."""

from visavis.registry.config import GateConfig, GateRule, RegisterConfig
from visavis.registry.gate import Decision, RuleResult, decide

__all__ = ["Decision", "GateConfig", "GateRule", "RegisterConfig", "RuleResult", "decide"]
