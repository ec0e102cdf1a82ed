"""The verbs `data check` and `data import`: judge a data set, or make one of somebody else's editing chats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from visavis.cli.options import RecipeName
from visavis.errors import VisavisError

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_EXAMPLES = 3

app = typer.Typer(help="Check a data set, or import one.", no_args_is_help=True)


@app.command("check")
def check(folder: Annotated[Path, typer.Argument(help="Folder of a data set.")]) -> None:
    """Check a data set: its files against their hashes, every sample, leaks between splits, balance.

    Exits with 1 if something is wrong. Nothing but the folder is read, so a copied or edited data set is judged too.

    Example: `visavis data check data`
    """
    from visavis.data.published.validation import validate

    console = Console(highlight=False)
    report = validate(folder)
    for row in report.to_dict()["checks"]:
        verdict = "ok" if not row["found"] else row["level"]
        words = row["words"] + (f": {row['found']:,}" if row["found"] else "")
        console.print(f"[{_COLOURS[verdict]}]{verdict:>8}[/]  {escape(words)}", soft_wrap=True)
        for example in row["examples"][:_EXAMPLES]:
            console.print(f"{'':>8}  {example}", markup=False, soft_wrap=True)
    raise typer.Exit(0 if report.passed else 1)


@app.command("import")
def import_(
    layout: Annotated[str, typer.Argument(help="`magicbrush` or `seed-data-edit`.")],
    source: Annotated[Path, typer.Argument(help="Folder in that layout.")],
    out: Annotated[Path, typer.Option(help="Folder of the data set; an earlier one there is replaced.")],
    recipe: RecipeName = "storybook",
    licence: Annotated[str | None, typer.Option(help="Licence of the set, for the card.")] = None,
) -> None:
    """Import multi-turn editing chats: the special case in which each turn needs the last picture only.

    Example: `visavis data import magicbrush MagicBrush/train --out editing --licence CC-BY-4.0`
    """
    from rich.progress import Progress

    from visavis.data.chats.importers import import_editing
    from visavis.data.published.dataset import check_place
    from visavis.recipes import recipe_named

    if not source.is_dir():
        raise VisavisError(f"SOURCE is {source}, which is not a folder", fix="give the folder of the set")
    check_place(out)
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("importing")
        counts = import_editing(
            layout,
            source,
            out,
            recipe_named(recipe).conversations,
            licence=licence,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    dropped = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts["dropped"].items())
    console.print(
        f"{counts['kept']} of {counts['in']} chats in {out}" + (f"; dropped: {dropped}" if dropped else "")
    )
