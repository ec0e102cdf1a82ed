"""The one error that users see: what is wrong, and how to fix it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial


class VisavisError(Exception):
    """A mistake in configuration, input or environment that the user can fix.

    Args:
        message: What is wrong; names the field and the value.
        fix: What to do about it, as an instruction.
    """

    exit_code = 2
    """How a command ends."""

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __reduce__(self) -> tuple[Callable[[str], VisavisError], tuple[str]]:
        return partial(type(self), fix=self.fix), (self.message,)  # `fix` has no place in `args`

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}"


class TransientError(VisavisError):
    """Something outside failed that may work the next time: a cluster, a server, a machine that was taken away."""

    exit_code = os.EX_TEMPFAIL
    """The same command may be given again, by a program too."""


def storage_error(error: OSError) -> VisavisError | None:
    """Returns what people should read of a full or read-only disk, or None if it was something else."""
    where = error.filename or "the run's folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return VisavisError(
            f"the disk is full: {where} could not be written",
            fix="free some space (old results lie in runs/store) and repeat the command: it goes on here",
        )
    if error.errno in (errno.EACCES, errno.EROFS):
        return VisavisError(
            f"{where}: {error.strerror}", fix="make the folder writable, or work in another one"
        )
    return None
