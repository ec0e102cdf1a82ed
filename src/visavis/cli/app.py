"""The verbs. Heavy libraries are imported by the verb that needs them, so that `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from visavis import __version__
from visavis.cli.errors import FriendlyGroup
from visavis.errors import VisavisError

console = Console(highlight=False)

app = typer.Typer(
    cls=FriendlyGroup,
    name="visavis",
    help="Train, judge and promote a model that you can **talk to about a face**.",
    epilog="Begin with `visavis run --recipe smoke` (two minutes), then `visavis run --recipe storybook`, "
    "then `visavis chat`. `visavis doctor` tells what this machine lacks.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipe_app = typer.Typer(help="Look at what a run is made of.", no_args_is_help=True)
pack_app = typer.Typer(help="Build, check and describe packs of pretrained parts.", no_args_is_help=True)
storybook_app = typer.Typer(
    help="The procedural world that the embedded pack was trained on.", no_args_is_help=True
)
app.add_typer(recipe_app, name="recipe")
app.add_typer(pack_app, name="pack")
app.add_typer(storybook_app, name="storybook")

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe, such as `mllm.pair.lr=1e-4`."),
]
RecipeName = Annotated[str, typer.Option("--recipe", "-r", help="Named recipe, or the path of a saved one.")]


def main() -> None:
    """Entry point of the `visavis` command."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"visavis {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port of 127.0.0.1 to listen on.")] = 5000,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
) -> None:
    """Open MLflow on the runs: curves, picture grids, scorecards, the registered versions.

    Example: `visavis ui --port 5001`
    """
    from visavis.cli.ui import serve

    serve(runs, port, console)


@app.command()
def doctor(
    pack: Annotated[str, typer.Option(help="Pack to verify: a bundled one or a folder.")] = "storybook",
    port: Annotated[int, typer.Option(help="Port that `visavis ui` is to use.")] = 5000,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
) -> None:
    """Look at this machine: Python, memory, disk, port, libraries, GPU, the hashes of the pack.

    Exits with 1 if something is missing that a run needs.
    """
    from visavis.cli.doctor import examine

    colours = {"ok": "green", "warning": "yellow", "missing": "red"}
    missing = 0
    for finding in examine(pack, port, runs):
        colour = colours[finding.verdict]
        console.print(f"[{colour}]{finding.verdict:>8}[/]  {finding.subject:<17} {finding.found}")
        if finding.fix:
            console.print(f"{'':>8}  {'':<17} [green]fix:[/] {finding.fix}")
        missing += finding.verdict == "missing"
    raise typer.Exit(1 if missing else 0)


@recipe_app.command("list")
def list_recipes() -> None:
    """List the named recipes."""
    from visavis.recipes import RECIPES

    table = Table("recipe", "what it is", box=None, padding=(0, 2))
    for name, build in RECIPES.items():
        table.add_row(name, (build.__doc__ or "").strip().splitlines()[0])
    console.print(table)


@recipe_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="Named recipe, or the path of a saved one.")] = "storybook",
    overrides: Overrides = None,
) -> None:
    """Print a resolved recipe as YAML; redirect it into a file to keep and edit it.

    Example: `visavis recipe show storybook rounds.steps=500 > mine.yaml; visavis run --recipe mine.yaml`
    """
    from visavis.recipes import apply_overrides, recipe_named

    typer.echo(apply_overrides(recipe_named(name), overrides or []).to_yaml(), nl=False)


@pack_app.command("verify")
def verify_pack(
    name: Annotated[str, typer.Argument(help="Bundled pack by name, or the folder of one.")] = "storybook",
) -> None:
    """Check every file of a pack against the hash in its manifest."""
    from visavis.packs import load_pack

    pack = load_pack(name)
    pack.verify()
    size = sum((pack.root / path).stat().st_size for path in pack.manifest.files)
    files = len(pack.manifest.files)
    console.print(f"{name}: {files} files, {size / 1e6:.1f} MB, every hash as the manifest has it")


@pack_app.command("card")
def show_card(
    name: Annotated[str, typer.Argument(help="Bundled pack by name, or the folder of one.")] = "storybook",
) -> None:
    """Show what each part of a pack was trained on, and how well it does on people it has not seen."""
    from rich.markdown import Markdown

    from visavis.packs import load_pack

    pack = load_pack(name)
    card = pack.root / "card.md"
    if not card.is_file():
        raise VisavisError(
            f"pack {name}: {card} does not exist", fix="visavis pack build writes it; or copy the pack afresh"
        )
    console.print(Markdown(card.read_text()))
