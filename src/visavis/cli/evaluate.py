"""The verbs `evaluate` and `monitor`: a version on the test people of a run, and the champion on fresh clips."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from visavis.cli.options import RecipeName, Runs
from visavis.errors import VisavisError
from visavis.files import read_json

console = Console(highlight=False)


def evaluate(
    model: Annotated[str, typer.Argument(help="Alias or number of a version, or its address.")] = "champion",
    run: Annotated[Path, typer.Option(help="Run whose test people it is scored on.")] = Path("runs/latest"),
    out: Annotated[Path | None, typer.Option(help="Folder for scorecard and report.")] = None,
    name: Annotated[str, typer.Option(help="Registered model.")] = "visavis",
    system: Annotated[
        str,
        typer.Option(help="Another system in its place: `seedx`, `emu2`, `ip_adapter`, or `module:Class`."),
    ] = "",
    pack: Annotated[str, typer.Option(help="Pack of that system's weights.")] = "",
    runs: Runs = Path("runs"),
) -> None:
    """Score a version on people that it has not seen: the test split of a run's data.

    Versions that are scored on the same run are scored on the same items; `visavis gate OUT --champion OTHER` compares
    two. What was scored before is reused.

    Example: `visavis evaluate 3` · `visavis evaluate champion --run runs/latest --out champion` ·
    `visavis evaluate --system ip_adapter --pack packs/ip-adapter`
    """
    from visavis.evaluation import Scorecard, scorecard_table
    from visavis.launch.evaluating import evaluate_on_run, evaluate_system_on_run

    if bool(system) != bool(pack):
        raise VisavisError(
            f"--system is {system!r} and --pack is {pack!r}",
            fix="give both, for example: --system ip_adapter --pack packs/ip-adapter",
        )
    address = model if model.startswith("models:/") else _address(name, model)
    with console.status(f"scoring {system or address}"):
        if system:
            folder = evaluate_system_on_run(system, pack, run, runs=runs)
        else:
            folder = evaluate_on_run(address, run, runs=runs)
    console.print(scorecard_table(Scorecard.read(folder / "scorecard.json"), slices=False))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for file in ("scorecard.json", "report.html", "items.jsonl"):
            shutil.copyfile(folder / file, out / file)
    console.print(f"the report: {(out or folder) / 'report.html'}", markup=False, soft_wrap=True)


def monitor(
    recipe: RecipeName = "storybook",
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe, such as `clips.source=/fresh`."),
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Score the champion on fresh clips and compare it with its own past; exits with 1 on drift.

    `monitor.webhook=URL` is told of drift by a signed POST. Schedule it: on a cluster the pipeline is `monitor`.

    Example: `visavis monitor clips.source=/clips/of/this/week monitor.webhook=https://...`
    """
    from visavis.launch.local import run_local
    from visavis.recipes import apply_overrides, edit, recipe_named
    from visavis.steps.run_files import DRIFT

    # Nothing is trained on these clips, so nearly all of them can be test items.
    shares = {"conversations.shares": {"train": 0.02, "val": 0.02, "test": 0.96}}
    resolved = apply_overrides(edit(recipe_named(recipe), shares), overrides or [])
    result = run_local(resolved, runs=runs, console=console, pipeline="monitor")
    report = read_json(result.run_dir / DRIFT)
    _show(report)
    raise typer.Exit(1 if report["drifted"] else 0)


def _address(name: str, model: str) -> str:
    return f"models:/{name}/{model}" if model.isdigit() else f"models:/{name}@{model}"


def _show(report: dict[str, object]) -> None:
    from visavis.evaluation.drift import Drift

    rows = report["figures"]
    if not isinstance(rows, list):
        raise VisavisError("drift.json holds no figures", fix="run `visavis monitor` again")
    console.print(f"\n{report['version']}", style="bold", markup=False)
    if not rows:
        console.print("  there is no earlier scorecard: this one is the first")
    for row in rows:
        colour = "red" if row["drifted"] else "green"
        console.print(f"  [{colour}]●[/] {Drift(**row).words()}", soft_wrap=True)
