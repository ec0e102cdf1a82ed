"""How long the main job takes, step by step, and whether doing it again costs nothing.

    python benchmarks/demo.py                      # the whole demo in a fresh folder, then once more
    python benchmarks/demo.py --recipe smoke       # the same with the quick recipe
    python benchmarks/demo.py --run runs/latest    # only read what a run noted

The last line is one JSON object: `recipe`, `steps` (seconds by step), `seconds` (their sum), `wall_seconds`
and `rerun_seconds` (null with --run), `peak_rss_gib` (of the largest step), `cpus`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from visavis.cli.errors import USER_ERROR, complain
from visavis.cli.summary import timings_table
from visavis.errors import VisavisError
from visavis.files import read_json

console = Console(highlight=False)


def figures(run_dir: Path) -> dict[str, Any]:
    """Returns what a run noted of its times.

    Raises:
        VisavisError: If the folder holds no finished run.
    """
    file = run_dir / "timings.json"
    if not file.is_file():
        raise VisavisError(
            f"{file} does not exist", fix="give the folder of a finished run, or leave out --run"
        )
    timings = read_json(file)
    console.print(timings_table(timings))
    return {
        "recipe": yaml.safe_load((run_dir / "recipe.yaml").read_text())["name"],
        "steps": {step["step"]: step["seconds"] for step in timings["steps"]},
        "seconds": timings["seconds"],
        "peak_rss_gib": round(timings["peak_rss_mb"] / 1024, 2),
        "cpus": os.cpu_count(),
        "wall_seconds": None,
        "rerun_seconds": None,
    }


def measured(recipe: str, runs: Path) -> dict[str, Any]:
    """Runs a recipe from nothing, then again, and returns the figures of both.

    Args:
        recipe: Named recipe, or the path of a saved one.
        runs: Empty folder for the runs.
    """
    from visavis.launch.local import run_local
    from visavis.recipes import recipe_named

    resolved = recipe_named(recipe)
    started = time.perf_counter()
    first = run_local(resolved, runs=runs, console=console)
    wall = time.perf_counter() - started
    result = figures(first.run_dir)
    started = time.perf_counter()
    run_local(resolved, runs=runs, console=console)
    rerun = time.perf_counter() - started
    console.print(f"from nothing, rendering included: {wall:.1f} s; the same run again: {rerun:.1f} s")
    return {**result, "wall_seconds": round(wall, 1), "rerun_seconds": round(rerun, 1)}


def main() -> None:
    """Reads the arguments, prints the table and, last, the figures as JSON."""
    parser = argparse.ArgumentParser(description="Time the main job step by step.")
    parser.add_argument("--recipe", default="storybook", help="recipe to run from nothing")
    parser.add_argument("--run", type=Path, help="folder of a finished run: read it instead of running")
    options = parser.parse_args()
    try:
        if options.run is not None:
            result = figures(options.run)
        else:
            with tempfile.TemporaryDirectory(prefix="visavis-demo-") as folder:
                result = measured(options.recipe, Path(folder))
    except VisavisError as error:
        complain(error)
        sys.exit(USER_ERROR)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
