"""The one error that users see: what is wrong, and how to fix it."""

from __future__ import annotations


class VisavisError(Exception):
    """A mistake in configuration, input or environment that the user can fix.

    Args:
        message: What is wrong; names the field and the value.
        fix: What to do about it, as an instruction.
    """

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}"
