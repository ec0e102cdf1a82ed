"""A version, or another system, scored on the data of a run that is done."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from visavis.errors import VisavisError
from visavis.launch.local import git_sha
from visavis.loading import checked_tracking_uri
from visavis.recipes import Recipe, recipe_named
from visavis.steps.contracts import RunContext
from visavis.steps.evaluate_system import STEP as SYSTEM
from visavis.steps.evaluate_system import evaluate_system
from visavis.steps.evaluate_version import STEP as VERSION
from visavis.steps.evaluate_version import evaluate_version


def evaluate_on_run(address: str, run: Path, *, runs: Path = Path("runs")) -> Path:
    """Scores a version on the test split of a run.

    Args:
        address: `models:/NAME/NUMBER` or `models:/NAME@ALIAS`.
        run: Folder of the run.
        runs: Folder of all runs.

    Returns:
        Folder of scorecard, items and report.

    Raises:
        VisavisError: If the run has no data, or there is no such version.
    """
    recipe, context, tokens = _on(run, runs)
    output = Path(context.run_dir) / f"{VERSION}.json"
    manifest = evaluate_version(
        recipe.model_dump_json(), context.model_dump_json(), {"tokens": tokens}, output, address
    )
    return manifest.folder


def evaluate_system_on_run(system: str, pack: str, run: Path, *, runs: Path = Path("runs")) -> Path:
    """Scores another system on the test split of a run.

    Args:
        system: Name of the system, or `module:Class`; see `visavis.evaluation.systems`.
        pack: Pack of its weights.
        run: Folder of the run.
        runs: Folder of all runs.

    Returns:
        Folder of scorecard, items and report.

    Raises:
        VisavisError: If the run has no data, there is no such system, or its pack lacks a part.
    """
    recipe, context, tokens = _on(run, runs)
    output = Path(context.run_dir) / f"{SYSTEM}.json"
    manifest = evaluate_system(
        recipe.model_dump_json(), context.model_dump_json(), {"tokens": tokens}, output, system, pack
    )
    return manifest.folder


def _on(run: Path, runs: Path) -> tuple[Recipe, RunContext, Path]:
    """Returns the recipe of a run, the context of a new step, and the manifest of the run's tokens."""
    run, runs = run.resolve(), runs.resolve()
    tokens = run / "manifests" / "encode_images.json"
    if not tokens.is_file():
        raise VisavisError(
            f"{run} holds no encoded test people", fix="give --run, the folder of a finished run"
        )
    recipe = recipe_named(str(run / "recipe.yaml"))
    folder = runs / f"{datetime.now():%Y%m%d-%H%M%S}-evaluate"
    context = RunContext(
        store=str(runs / "store"),
        run_dir=str(folder),
        run_name=folder.name,
        tracking_uri=checked_tracking_uri(runs),
        git_sha=git_sha(),
        recipe_hash=recipe.digest(),
    )
    return recipe, context, tokens
