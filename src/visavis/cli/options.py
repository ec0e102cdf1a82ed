"""The options that verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Option("--recipe", "-r", help="Named recipe, or the path of a saved one.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe, such as `mllm.pair.lr=1e-4`."),
]
Runs = Annotated[Path, typer.Option(help="Folder of all runs and their results.")]
Bucket = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="s3://BUCKET/PREFIX",
        help="Keep results and run in a bucket, as on a cluster, where steps share no disk: results below "
        "`PREFIX/store`, the run below `PREFIX/runs/NAME`. Its address and key are those of boto3 "
        "(`AWS_ENDPOINT_URL`, `AWS_PROFILE`, ...).",
    ),
]
