"""The verb `forget`: what holds a clip or a person, and the data set without it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from visavis.cli.options import Runs
from visavis.errors import VisavisError


def forget(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ITEM|PERSON",
            help="Id of a clip or picture (its first letters suffice), its source, or a person of `splits.json`.",
        ),
    ],
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the data set without it. Default: beside DATA.")
    ] = None,
    runs: Runs = Path("runs"),
    store: Annotated[
        str,
        typer.Option(metavar="s3://BUCKET/PREFIX", help="Where results and runs lie, if that is a bucket."),
    ] = "",
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the data set without it, and mark the model versions.")
    ] = False,
) -> None:
    """Forget a clip or a person: list the shards, results, runs and model versions that hold it.

    Without `--apply` nothing is changed. With it, the data set is written anew without it, all other samples as
    they were, and the model versions get the tags `forget.requested`, `forget.what` and `forget.when`.

    Examples: `visavis forget 5d334ee0 --data data` · `visavis forget pba030faa2183 --data data --apply`
    """
    from visavis.loading import local_tracking_uri
    from visavis.steps.forget import forget as forgotten

    if not data.is_dir():
        raise VisavisError(f"--data is {data}, which is not a folder", fix="give the folder of a data set")
    tracked = "MLFLOW_TRACKING_URI" in os.environ or (runs / "mlflow.db").is_file()
    report = forgotten(
        what,
        data,
        out=out,
        runs=store or (runs if runs.is_dir() else None),
        tracking_uri=local_tracking_uri(runs) if tracked else None,
        apply=apply,
    )
    console = Console(highlight=False)
    console.print(str(report), markup=False, soft_wrap=True)
    if not apply:
        console.print("To do it, repeat the command with --apply.")
    elif report.out is not None:
        console.print(
            f"So that curation leaves it out for good: add the ids in {report.out / 'forgotten.json'} "
            "to curate.forgotten.",
            soft_wrap=True,
        )
