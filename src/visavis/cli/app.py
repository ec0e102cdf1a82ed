"""The verbs. Heavy libraries are imported by the verb that needs them, so that `--help` answers at once."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from visavis import __version__
from visavis.cli.cluster import cancel, compile_, retry, submit, submit_if_changed
from visavis.cli.curate import curate
from visavis.cli.data import app as data_app
from visavis.cli.errors import FriendlyGroup
from visavis.cli.evaluate import evaluate, monitor
from visavis.cli.forget import forget
from visavis.cli.options import Bucket, Overrides, RecipeName, Runs
from visavis.cli.pack import app as pack_app
from visavis.cli.registry import approve, canary_app, gate, lineage, models, promote, rollback
from visavis.cli.scale import scale
from visavis.cli.schedule import schedule_app
from visavis.cli.serve import key, serve
from visavis.cli.study import app as study_app
from visavis.cli.train import train
from visavis.cli.watching import logs, status
from visavis.errors import VisavisError

console = Console(highlight=False)

app = typer.Typer(
    cls=FriendlyGroup,
    name="visavis",
    help="Train, judge and promote a model that you can **talk to about a face**.",
    epilog="Begin with `visavis run --recipe smoke` (two minutes), then `visavis run --recipe storybook`, "
    "then `visavis chat`. `visavis doctor` tells what this machine lacks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipe_app = typer.Typer(help="Look at what a run is made of.", no_args_is_help=True)
storybook_app = typer.Typer(
    help="The procedural world that the embedded pack was trained on.", no_args_is_help=True
)
app.add_typer(recipe_app, name="recipe")
app.add_typer(pack_app, name="pack")
app.add_typer(storybook_app, name="storybook")
app.add_typer(data_app, name="data")
app.add_typer(study_app, name="study")
app.command()(curate)
app.command()(forget)
app.command()(train)
app.command()(scale)
app.command()(evaluate)
app.command()(gate)
app.command()(approve)
app.command()(promote)
app.command()(rollback)
app.add_typer(canary_app, name="canary")
app.command()(models)
app.command()(lineage)
app.command()(monitor)
app.command()(serve)
app.command()(key)
app.command("compile")(compile_)
app.command()(submit)
app.command()(submit_if_changed)
app.add_typer(schedule_app, name="schedule")
app.command()(status)
app.command()(logs)
app.command()(retry)
app.command()(cancel)


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
def run(
    recipe: RecipeName = "storybook",
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    from_: Annotated[
        str,
        typer.Option("--from", metavar="STEP", help="Step whose result is not made but taken from --input."),
    ] = "",
    input_: Annotated[
        Path | None,
        typer.Option(
            "--input", metavar="MANIFEST", help="Manifest of that result, such as one of another run."
        ),
    ] = None,
    no_cache: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP", help="Step that is made anew although its result is there; repeatable."),
    ] = None,
    store: Bucket = "",
    ablations: Annotated[
        bool,
        typer.Option("--ablations", help="Afterwards try the paper's claims: train the baselines, compare."),
    ] = False,
    ablation_seeds: Annotated[
        int, typer.Option(min=2, help="Seeds of every arm of the comparisons, from the recipe's `seed` on.")
    ] = 3,
    ablation_workers: Annotated[
        int, typer.Option(min=0, help="Arms trained at a time, 2 GB of memory each; 0: one for each core.")
    ] = 0,
    claims_page: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the page of the claims, besides the folder of the run. "
            "Default: `docs/claims.md` if you are in the checkout of visavis, else nowhere."
        ),
    ] = None,
) -> None:
    """Run the whole pipeline here: clips -> conversations -> training -> scorecard -> registered version.

    Steps that were done before are reused, and a run that was killed goes on where it was: just repeat the
    command. `--ablations` goes on to train what the paper compares or leaves open: UNet detokenizers, one without
    pooling, direct tuning, other losses and connectors; 12 arms for every seed.

    `--from` begins in the middle: what only that step needs is not done.

    Examples: `visavis run --recipe smoke` · `visavis run clips.source=/my/clips` ·
    `visavis run mllm.pair.lr=1e-4 rounds.steps=400` · `visavis run --ablations` ·
    `visavis run --store s3://models/visavis` ·
    `visavis run --from build_conversations --input runs/latest/manifests/build_conversations.json` ·
    `visavis run --no-cache tune_rounds`
    """
    from visavis.packs import load_pack
    from visavis.recipes import apply_overrides, recipe_named

    resolved = apply_overrides(recipe_named(recipe), overrides or [])
    load_pack(resolved.pack).verify()  # a damaged pack is to stop a run before it begins, not in its middle
    from visavis.cli.summary import show, show_claims
    from visavis.launch.local import run_local

    if bool(from_) != bool(input_):
        raise VisavisError(
            "--from and --input go together", fix="give both: the step, and the manifest of its result"
        )
    given = {from_: input_} if input_ else {}
    result = run_local(resolved, runs=runs, console=console, given=given, anew=no_cache or (), store=store)
    show(result.run_dir, console)
    if ablations:
        from visavis.launch.ablations import default_page, run_ablations

        page = claims_page or default_page()
        run_ablations(
            resolved,
            result,
            runs=runs,
            seeds=ablation_seeds,
            workers=ablation_workers,
            page=page,
            console=console,
        )
        show_claims(result.run_dir, page, console)


@app.command()
def chat(
    model: Annotated[
        str, typer.Option(help="Registered version, or a model folder.")
    ] = "models:/visavis@challenger",
    runs: Annotated[Path, typer.Option(help="Folder of the runs, if MLflow is local.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures, else a new one in RUNS.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pictures.")] = 0,
) -> None:
    """Talk to a model: describe two people, then ask for a close-up photo of one by name.

    Example: `visavis chat --model models:/visavis@challenger`
    """
    from transformers.utils.logging import disable_progress_bar

    from visavis.loading import load, local_tracking_uri

    disable_progress_bar()
    folder = out or runs / "chats" / datetime.now().strftime("%Y%m%d-%H%M%S")
    with console.status("loading the model"):
        loaded = load(model, tracking_uri=local_tracking_uri(runs))
    from visavis.chat.terminal import run as talk

    talk(loaded, folder, seed, console)


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
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Look at the cluster instead: versions, kinds, rights, settings."),
    ] = False,
    cluster_file: Annotated[
        Path | None, typer.Option(help="Where runs go, for --cluster; by default `visavis.yaml`.")
    ] = None,
) -> None:
    """Look at this machine: Python, memory, disk, port, libraries, GPU, the hashes of the pack.

    With `--cluster`, at what a cluster offers against what this release needs: Kubeflow Pipelines, MLflow, Trainer,
    KServe, Kueue. Exits with 1 if something is missing that a run needs.
    """
    if cluster or cluster_file:
        from visavis.launch.cluster.examine import examine_cluster
        from visavis.launch.cluster.target import read_target

        findings = examine_cluster(read_target(cluster_file))
    else:
        from visavis.cli.doctor import examine

        findings = examine(pack, port, runs)
    colours = {"ok": "green", "warning": "yellow", "missing": "red"}
    missing = 0
    for finding in findings:
        colour = colours[finding.verdict]
        line = f"[{colour}]{finding.verdict:>8}[/]  {finding.subject:<17} {escape(finding.found)}"
        console.print(line, soft_wrap=True)
        if finding.fix:
            console.print(f"{'':>8}  {'':<17} [green]fix:[/] {escape(finding.fix)}", soft_wrap=True)
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


@storybook_app.command("render")
def render_storybook(
    out: Annotated[Path, typer.Argument(help="Folder to write; may hold the beginning of the same clips.")],
    count: Annotated[int, typer.Option(min=1, help="Number of clips.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed; other seeds show other people.")] = 0,
    pictures: Annotated[
        int | None, typer.Option(min=0, help="Number of still pictures, else as many.")
    ] = None,
) -> None:
    """Render MP4 clips of two people, and of all else that a real collection holds.

    Example: `visavis storybook render clips --count 200 --seed 7`, then `visavis run clips.source=clips`
    """
    from rich.progress import Progress

    from visavis.storybook.clips import render_clips

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("rendering")
        made = render_clips(
            out,
            count,
            seed,
            count_pictures=pictures,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    kinds = ", ".join(f"{number} {kind}" for kind, number in made["kinds"].items())
    console.print(f"{made['clips']} clips ({kinds}) and {made['pictures']} pictures in {out}", soft_wrap=True)
