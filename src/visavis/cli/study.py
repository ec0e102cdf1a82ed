"""The verbs `study create`, `study open` and `study report`: people say which of two pictures is better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from visavis.cli.doctor import port_is_free
from visavis.errors import VisavisError

if TYPE_CHECKING:
    from visavis.study.figures import Summary
    from visavis.study.plan import Study
    from visavis.study.votes import Votes

_HOST = "127.0.0.1"
_SHOWN = 5

app = typer.Typer(help="Let people compare two systems' pictures, blind.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Folder of the study.")]
Database = Annotated[
    str | None,
    typer.Option(
        help="`sqlite:///FILE` or `postgresql+psycopg2://USER@HOST/NAME`; by default a file in the folder.",
        envvar="VISAVIS_STUDY_DATABASE",
        show_envvar=True,
    ),
]


@app.command("create")
def create(
    folder: Annotated[Path, typer.Argument(help="Folder to make; must not hold anything.")],
    ours: Annotated[Path | None, typer.Option(help="Pictures of the system whose wins are counted.")] = None,
    theirs: Annotated[Path | None, typer.Option(help="Pictures of the other, under the same names.")] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Instead of folders: pictures of this run against those of the champion."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="With --run: against another run on the same data, not the champion.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Instead of folders: JSON lines of `a`, `b`, `prompt`, `face`, ...")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="JSON lines of `file`, `prompt`, `face`; without it only quality is asked."),
    ] = None,
    votes_per_item: Annotated[int, typer.Option(min=1, help="Raters for each pair.")] = 4,
    items_per_rater: Annotated[
        int, typer.Option(min=0, help="Most pairs that one rater is given; 0: all.")
    ] = 0,
    checks: Annotated[
        float, typer.Option(min=0, max=0.5, help="Attention checks, as a share of pairs.")
    ] = 0.1,
    allowed_failures: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of checks above which a rater is not counted.")
    ] = 0.25,
    seed: Annotated[int, typer.Option(help="Of sides, orders and checks.")] = 0,
) -> None:
    """Make a study of pairs of pictures; nothing in it but `plan.json` tells which system made which.

    Examples: `visavis study create faces --run runs/latest` ·
    `visavis study create faces --ours ours/ --theirs theirs/ --prompts prompts.jsonl`
    """
    from visavis.study.pairs import pairs_from_folders, pairs_from_manifest
    from visavis.study.plan import Settings, create_study

    console = Console(highlight=False)
    alone: tuple[str, ...] = ()
    if sum(source is not None for source in (manifest, run, ours)) > 1:
        raise VisavisError(
            "several sources of pictures are given", fix="give --run, --manifest, or two folders"
        )
    if run is not None:
        ours, theirs, prompts = _of_runs(run, against)
    if manifest is not None:
        pairs = pairs_from_manifest(manifest)
    elif ours is None or theirs is None:
        raise VisavisError(
            "nothing to compare is given", fix="give --run, --ours and --theirs, or --manifest"
        )
    else:
        pairs, alone = pairs_from_folders(ours, theirs, prompts)
    settings = Settings(
        votes_per_item=votes_per_item,
        items_per_rater=items_per_rater,
        checks=checks,
        allowed_failures=allowed_failures,
        seed=seed,
    )
    study = create_study(folder, pairs, settings)
    if alone:
        more = ", …" if len(alone) > _SHOWN else ""
        names = ", ".join(alone[:_SHOWN]) + more
        console.print(f"[yellow]{len(alone)} pictures without a partner were left out:[/] {escape(names)}")
    asked = sum(len(item.questions) for item in study.plan.items)
    console.print(
        f"{len(pairs)} pairs with {asked} questions, {votes_per_item} votes each, in {folder}\n"
        f"  next: visavis study open {folder}",
        markup=False,
        soft_wrap=True,
    )


def _of_runs(run: Path, against: Path | None) -> tuple[Path, Path, Path]:
    """Returns the pictures of a run, those of its champion or of another run, and the words."""
    from visavis.steps.run_files import read_manifests
    from visavis.steps.study_pictures import PICTURES, PROMPTS, STUDY

    def folder(place: Path, step: str, fix: str) -> Path:
        manifest = read_manifests(place).get(step)
        if manifest is None or not (manifest.folder / STUDY).is_dir():
            raise VisavisError(f"run {place} has no pictures of {step.replace('_', ' ')}", fix=fix)
        return manifest.folder / STUDY

    ours = folder(run, "evaluate_model", "give the folder of a finished run")
    if against is not None:
        theirs = folder(against, "evaluate_model", "give the folder of a finished run")
    else:
        fix = "promote a version and run another recipe, or give --against RUN"
        theirs = folder(run, "evaluate_champion", fix)
    return ours / PICTURES, theirs / PICTURES, ours / PROMPTS


@app.command("open")
def open_(
    folder: Folder,
    port: Annotated[int, typer.Option(min=1, max=65535, help=f"Port of {_HOST} to listen on.")] = 8010,
    database: Database = None,
) -> None:
    """Serve the page on which people vote, on this machine only; put a proxy with TLS before it to let others in.

    Example: `visavis study open faces --port 8010`
    """
    if not port_is_free(port):
        raise VisavisError(f"port {port} is in use", fix=f"choose another one: --port {port + 1}")
    import uvicorn

    from visavis.study.page import create_app

    _, votes = _opened(folder, database)
    console = Console(highlight=False)
    console.print(f"[bold]{escape(str(folder))}[/] on [bold]http://{_HOST}:{port}/[/]   Ctrl-C ends it")
    try:
        uvicorn.run(create_app(votes), host=_HOST, port=port, log_level="warning")
    finally:
        votes.close()


@app.command("report")
def report(
    folder: Annotated[Path | None, typer.Argument(help="Folder of the study.")] = None,
    database: Database = None,
    counts: Annotated[
        str | None,
        typer.Option(help="Of counts alone: `quality=WIN/LOSE/TIE,...`; written only if a folder is given."),
    ] = None,
    log_to_run: Annotated[
        str | None, typer.Option(help="Id of a run in MLflow that gets the figures.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs, if MLflow is local.")] = Path("runs"),
) -> None:
    """Print what the votes say, and write `report.html` and `study.json` into the folder.

    Examples: `visavis study report faces` ·
    `visavis study report --counts "quality=59/3/18,alignment=29/12/39,identity=57/2/21"`
    """
    from visavis.study.report import log_to_run as log
    from visavis.study.report import result_table, write_results

    summary = _summary(folder, database, counts)
    console = Console(highlight=False)
    for judge in (None, *summary.judges):
        if judge is not None or summary.people:
            console.print(result_table(summary, judge))
    if not summary.people and not summary.judges:
        console.print("no vote counts so far")
    if summary.excluded or summary.excluded_judges:
        names = "".join(f", judge {name}" for name in summary.excluded_judges)
        console.print(f"left out for failed attention checks: {summary.excluded} people{names}")
    files: tuple[Path, ...] = ()
    if folder is not None:
        files = write_results(folder, summary, f"Study {folder.resolve().name}")
        console.print(f"written: {', '.join(str(file) for file in files)}", markup=False, soft_wrap=True)
    if log_to_run is not None:
        from visavis.loading import local_tracking_uri

        logged = log(summary, files, tracking_uri=local_tracking_uri(runs), run_id=log_to_run)
        console.print(f"{logged} figures logged to run {log_to_run}", markup=False)


def _summary(folder: Path | None, database: str | None, counts: str | None) -> Summary:
    from visavis.study.figures import summarise, summary_of_counts
    from visavis.study.statistics import parse_counts

    if counts is not None:
        return summary_of_counts(parse_counts(counts))
    if folder is None:
        raise VisavisError("neither a folder nor --counts is given", fix="give the folder of a study")
    study, votes = _opened(folder, database)
    try:
        return summarise(study.plan, votes.all())
    finally:
        votes.close()


def _opened(folder: Path, database: str | None) -> tuple[Study, Votes]:
    from visavis.study.plan import open_study
    from visavis.study.votes import Votes

    study = open_study(folder)
    return study, Votes(database or f"sqlite:///{folder.resolve() / 'votes.db'}", study)
