"""The paper's comparisons, tried again on the data of a run that is done: every arm with every seed.

All arms read the conversations of that run; only the training depends on the seed.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console

from visavis.evaluation.claims import ClaimResult, claims_markdown, write_claims
from visavis.files import read_json, write_atomic
from visavis.launch.arms import Arm, Scorecards, arm_recipe, arms, claim_results
from visavis.launch.kfp_client import ROOT, pipeline_named
from visavis.launch.local import RunResult, carry_out, context_for
from visavis.recipes import Recipe
from visavis.steps.contracts import Manifest
from visavis.steps.framework import log
from visavis.steps.score_arm import STEP as SCORING

CLAIMS_PAGE, CLAIMS_JSON = "claims.md", "claims.json"


def default_page() -> Path | None:
    """Returns `docs/claims.md` of the checkout if the working directory lies in it."""
    docs = ROOT / "docs"
    return docs / CLAIMS_PAGE if docs.is_dir() and Path.cwd().is_relative_to(ROOT) else None


def run_ablations(
    recipe: Recipe,
    run: RunResult,
    *,
    runs: Path = Path("runs"),
    seeds: int = 3,
    workers: int = 0,
    page: Path | None = None,
    console: Console | None = None,
) -> list[ClaimResult]:
    """Trains and scores every arm with every seed, and writes which claims hold.

    Finished steps are reused from `runs/store`, those of the run included; so a killed call goes on where it was.
    Each arm has a folder in that of the run, `arms/<arm>-<seed>`, and an MLflow run below the run's, with the
    tags `arm` and `seed`. `claims.md` and `claims.json` go into the folder of the run.

    Args:
        recipe: Recipe of the run.
        run: The run; its data serve all arms.
        runs: Folder of all runs.
        seeds: How many seeds, beginning with the recipe's; an interval needs 2.
        workers: Arms at a time, each in a process of its own with its share of the cores; 0: one for each core.
        page: Where to write the page once more.
        console: Where to show the progress.

    Raises:
        VisavisError: If a step failed, or a figure could not be measured.
    """
    console = Console(file=(console or Console()).file, highlight=False)
    todo = [(arm, recipe.seed + number) for number in range(seeds) for arm in arms(recipe)]
    scorecards: dict[str, dict[int, dict[str, Any]]] = {}
    for arm, seed, folder in _all_done(recipe, todo, run, runs.resolve(), workers, console):
        scorecards.setdefault(arm.name, {})[seed] = read_json(folder / "scorecard.json")
    results = claim_results(recipe, scorecards)
    context = _context(recipe, scorecards)
    files = [run.run_dir / CLAIMS_PAGE, run.run_dir / CLAIMS_JSON]
    write_claims(results, *files, context=context)
    if page is not None:
        write_atomic(page, claims_markdown(results, context=context))
    _tell_mlflow(run.tracking_uri, run.parent_run_id, files=files)
    return results


def _all_done(
    recipe: Recipe, todo: list[tuple[Arm, int]], run: RunResult, runs: Path, workers: int, console: Console
) -> Iterator[tuple[Arm, int, Path]]:
    """Runs arms side by side; yields each with the folder of its scorecard when it is done."""
    cores = os.cpu_count() or 1
    workers = min(workers or cores, len(todo))
    where = run.run_dir / "arms"
    console.print(
        f"\n{len(todo)} arms, {workers} at a time; their logs are in {where}",
        style="bold",
        markup=False,
        soft_wrap=True,
    )
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _take_cores, (max(1, cores // workers),)) as pool:
        jobs = {pool.submit(_run_arm, recipe, arm, seed, run, runs): (arm, seed) for arm, seed in todo}
        try:
            for number, job in enumerate(as_completed(jobs), start=1):
                (arm, seed), (folder, seconds) = jobs[job], job.result()
                console.print(f"arm {number} of {len(todo)}: {arm.says}, seed {seed}: {seconds:.0f} s")
                yield arm, seed, folder
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _take_cores(count: int) -> None:
    """Gives the steps of this process some cores: small models gain more from one each than from two in turn."""
    os.environ.update({"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)})


def _run_arm(recipe: Recipe, arm: Arm, seed: int, run: RunResult, runs: Path) -> tuple[Path, float]:
    """Runs the pipeline of one arm; returns the folder of its scorecard and the seconds that it took."""
    began = time.monotonic()
    name = f"{arm.name}-{seed}"
    folder, changed = run.run_dir / "arms" / name, arm_recipe(recipe, arm, seed)
    (folder / "timings").mkdir(parents=True, exist_ok=True)
    changed.save(folder / "recipe.yaml")
    tags = {"arm": arm.name, "seed": str(seed), "mlflow.parentRunId": run.parent_run_id}
    known = {key: value for key, value in tags.items() if value}
    context = context_for(changed, runs, folder, f"{run.run_dir.name} {name}", known)
    arguments = {
        "recipe": changed.model_dump_json(),
        "conversations": str(run.run_dir / "manifests" / "build_conversations.json"),
        "compares": arm.compares,
    }
    with (folder / "progress.log").open("w") as stream:
        carry_out(pipeline_named("ablation"), arguments, context, Console(file=stream))
    scored = Manifest.read(folder / "manifests" / f"{SCORING}.json")
    _tell_mlflow(run.tracking_uri, context.parent_run_id, figures=scored.metrics)
    return scored.folder, time.monotonic() - began


def _context(recipe: Recipe, scorecards: Scorecards) -> str:
    """Returns a sentence on the size of it all."""
    seeds = sorted(scorecards["staged"])
    counts = scorecards["staged"][seeds[0]]["counts"]
    return (
        f"Recipe `{recipe.name}`, pack `{recipe.pack}`, seeds {seeds[0]} to {seeds[-1]}, on {os.cpu_count()} CPU cores"
        f" ({platform.machine()}). Test split: {counts['single_round']} single rounds of {counts['people']} people,"
        f" {counts['reconstruction']} pictures to reconstruct."
    )


def _tell_mlflow(
    uri: str, run_id: str, *, files: Iterable[Path] = (), figures: Mapping[str, float] | None = None
) -> None:
    """Adds files and figures to a run; they lie on disk already, so a dead tracker is only a warning."""
    from visavis.tracking import client_for

    if not run_id:
        return
    try:
        from mlflow.entities import Metric

        client, now = client_for(uri), int(time.time() * 1000)
        client.log_batch(run_id, [Metric(name, value, now, 0) for name, value in (figures or {}).items()])
        for file in files:
            client.log_artifact(run_id, str(file))
    except Exception as error:  # whatever MLflow raises
        log.warning("MLflow did not take what came of the comparisons: %s", error)
