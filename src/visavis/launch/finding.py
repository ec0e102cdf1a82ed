"""What a doctor finds, on this machine or on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing the doctor looked at.

    Attributes:
        subject: What was looked at.
        verdict: `ok`, `warning` (a run works, but worse) or `missing` (a run stops).
        found: What is there.
        fix: What to do; empty when all is well.
    """

    subject: str
    verdict: Verdict
    found: str
    fix: str = ""
