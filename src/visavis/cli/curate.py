"""The verb `curate`: from a pile of clips to a data set of conversations, without training anything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from visavis.cli.options import Bucket, RecipeName, Runs
from visavis.files import atomic_dir, link_or_copy


def curate(
    source: Annotated[
        str, typer.Option(help="Folder, manifest (.jsonl, .csv, .parquet) or s3://… of clips.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the data set; an earlier data set there is replaced.")],
    recipe: RecipeName = "storybook",
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe, such as `curate.min_face=0.1`."),
    ] = None,
    runs: Runs = Path("runs"),
    store: Bucket = "",
) -> None:
    """Curate clips: find the same two people in both ends of each, describe and name them, build chats.

    Every clip is kept or dropped with one reason; the funnel is printed at the end, and `viewer.html` in OUT shows
    both. What was done before is reused, and a run that was killed goes on where it was: repeat the command.

    Examples: `visavis curate --source /my/clips --out data` ·
    `visavis curate --source s3://bucket/clips --out data --store s3://models/visavis` ·
    `visavis curate --source s3://bucket/clips --out data curate.require_consent=true`
    """
    from visavis.cli.summary import show
    from visavis.data.published.dataset import check_place
    from visavis.launch.local import run_local
    from visavis.packs import load_pack
    from visavis.recipes import apply_overrides, edit, recipe_named
    from visavis.steps.run_files import read_manifests

    console = Console(highlight=False)
    resolved = edit(apply_overrides(recipe_named(recipe), overrides or []), {"clips.source": source})
    load_pack(resolved.pack).verify()
    check_place(out)
    result = run_local(resolved, runs=runs, console=console, pipeline="curate", store=store)
    built = read_manifests(result.run_dir)["build_conversations"]
    _hand_over(built.folder, out, list(built.files))
    show(result.run_dir, console, model=False)
    console.print(f"  {'the data set':<24} {out}", soft_wrap=True)
    console.print(f"  {'to look through it':<24} {out / 'viewer.html'}", soft_wrap=True)


def _hand_over(built: Path, out: Path, files: list[str]) -> None:
    """Gives the data set a second place; shards share their bytes where the disk allows it."""
    with atomic_dir(out) as folder:
        for name in files:
            target = folder / name
            if target.suffix == ".tar":
                link_or_copy(built / name, target)
                continue
            # What people may edit in place must not change the store.
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(built / name, target)
