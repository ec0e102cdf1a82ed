"""How the command line ends when something is wrong: one message with the fix, no traceback."""

from __future__ import annotations

import logging
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from visavis.errors import VisavisError, storage_error

USER_ERROR = 2
"""Exit code of a mistake that the user can fix."""

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


class FriendlyGroup(TyperGroup):
    """A group of commands that turns errors for users into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; `ctx` is the context of the click that typer brings along.

        Raises:
            typer.Exit: With the code of the error: 2 for a mistake the user can fix, 75 for what may pass by itself;
                with `STOPPED` after Ctrl-C.
        """
        # On a full disk every line of a log fails too, with a traceback that would bury the one message.
        logging.raiseExceptions = False
        try:
            return super().invoke(ctx)
        except VisavisError as error:
            complain(error)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if (explained := storage_error(error)) is None:
                raise
            complain(explained)
            raise typer.Exit(USER_ERROR) from None
        except KeyboardInterrupt:
            _stderr().print("\nStopped. The same command goes on from here.")
            raise typer.Exit(STOPPED) from None


def complain(error: VisavisError) -> None:
    """Prints an error and its fix to standard error."""
    console = _stderr()
    console.print(f"[bold red]error:[/] {escape(error.message)}", soft_wrap=True)
    console.print(f"  [bold green]fix:[/] {escape(error.fix)}", soft_wrap=True)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)
