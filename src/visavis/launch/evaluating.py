"""A version scored on the data of a run that is done."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from visavis.errors import VisavisError
from visavis.launch.local import git_sha
from visavis.loading import checked_tracking_uri
from visavis.recipes import recipe_named
from visavis.steps.contracts import RunContext
from visavis.steps.evaluate_version import STEP, evaluate_version


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
    manifest = evaluate_version(
        recipe.model_dump_json(),
        context.model_dump_json(),
        {"tokens": tokens},
        folder / f"{STEP}.json",
        address,
    )
    return manifest.folder
