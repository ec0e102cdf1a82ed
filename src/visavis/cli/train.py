"""`visavis train`: one stage of training by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from visavis.cli.options import Bucket, Overrides, RecipeName, Runs

console = Console(highlight=False)


def train(
    stage: Annotated[
        str,
        typer.Argument(help="encode, detokenizer, reconstruct, inpaint, pair, rounds or adapt."),
    ],
    overrides: Overrides = None,
    recipe: RecipeName = "storybook",
    processes: Annotated[
        int,
        typer.Option("--processes", "-p", min=1, help="Processes on this machine that share the training."),
    ] = 1,
    runs: Runs = Path("runs"),
    store: Bucket = "",
) -> None:
    """Train one stage here: what it starts from is reused from earlier runs, or made first.

    A stage that was killed, or stopped by SIGTERM (exit code 75), goes on where it was: repeat the command, with
    another number of processes if you like.

    Examples: `visavis train pair --recipe storybook mllm.pair.steps=200` ·
    `visavis train rounds -p 2 engine.zero_stage=2` · `visavis train adapt --store s3://models/visavis`
    """
    from visavis.launch.stages import STAGES, train_stage
    from visavis.packs import load_pack
    from visavis.recipes import apply_overrides, recipe_named
    from visavis.steps.contracts import Manifest

    resolved = apply_overrides(recipe_named(recipe), overrides or [])
    load_pack(resolved.pack).verify()
    result = train_stage(resolved, stage, processes=processes, runs=runs, console=console, store=store)
    manifest = Manifest.read(result.run_dir / "manifests" / f"{STAGES[stage].step}.json")
    for name, value in sorted(manifest.metrics.items()):
        console.print(f"  {name:<28} {value:.4g}")
    console.print(f"the result is in {manifest.uri}", markup=False, soft_wrap=True)
