"""What Kubeflow's local runner costs: the whole DAG in its processes beside the same steps in one Python process.

    python benchmarks/pipeline.py                  # the recipe smoke, once each way
    python benchmarks/pipeline.py --recipe storybook --rounds 3

Both ways run the components' own bodies on the same clips, each in a store of its own. The last line is one JSON
object: `pipeline_seconds`, `plain_seconds`, `steps`, `overhead_s_per_step` (process start and imports included),
`rerun_s_per_step` (a step that is reused), `cpus`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console
from rich.table import Table

from visavis.cli.errors import USER_ERROR, complain
from visavis.errors import VisavisError
from visavis.launch.clips import with_clips
from visavis.launch.kfp_client import pipeline_named
from visavis.launch.local import carry_out, context_for, watched
from visavis.recipes import Recipe, recipe_named
from visavis.steps.contracts import RunContext
from visavis.steps.timings import read_timings

console = Console(highlight=False)


class Artifact:
    """What a component's body sees of an artifact."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.metadata: dict[str, Any] = {}


class Plain:
    """Calls the bodies of components one after the other, in this process."""

    def __init__(self, recipe: str, context: str, folder: Path) -> None:
        self._common = {"recipe": recipe, "context": context}
        self._folder = folder
        self._made = 0
        folder.mkdir(parents=True)

    def __call__(self, name: str, outputs: tuple[str, ...] = (), **inputs: Any) -> tuple[Any, list[Artifact]]:
        """Returns what the body returns, and its output artifacts."""
        module = __import__(f"components.{name}.component", fromlist=[name])
        made = [Artifact(self._folder / f"{self._made + index}.json") for index in range(len(outputs))]
        self._made += len(outputs)
        body: Callable[..., Any] = getattr(module, name).python_func
        returned = body(**self._common, **inputs, **dict(zip(outputs, made, strict=True)))
        return returned, made

    def one(self, name: str, *outputs: str, **inputs: Any) -> Artifact:
        """Returns the first output artifact of a component."""
        return self(name, outputs, **inputs)[1][0]


def train_plainly(run: Plain) -> None:
    """The pipeline `train`, as `pipelines/train.py` wires it."""
    run.one("preflight", "page")
    parts, (listing,) = run("list_clips", ("listing",))
    judged = [run.one("curate_part", "judged", part=part, listing=listing) for part in parts]
    pairs = run.one("curate_clips", "pairs", judged=judged)
    captions = run.one("describe_clips", "captions", pairs=pairs)
    faces = run.one("segment_faces", "faces", pairs=pairs)
    known = {"pairs": pairs, "captions": captions, "faces": faces}
    targets = run.one("make_full_body", "targets", **known)
    conversations = run.one("build_conversations", "conversations", **known, full_body=targets)
    tokens = run.one("encode_images", "tokens", conversations=conversations)
    data = {"conversations": conversations, "tokens": tokens}
    painter = run.one("tune_detokenizer", "detokenizer", "job", **data)
    stages: list[Artifact] = []
    for stage in ("reconstruct", "inpaint", "pair"):
        before = stages[-1] if stages else None
        stages.append(run.one("tune_mllm", "tuned", "job", **data, stage=stage, mllm=before))
    chatty = run.one("tune_rounds", "tuned", "job", **data, mllm=stages[-1])
    adapted = run.one("adapt_detokenizer", "adapted", "job", **data, mllm=chatty, detokenizer=painter)
    _, (scorecard, _) = run(
        "evaluate_model",
        ("scorecard", "report"),
        **data,
        reconstruct=stages[0],
        inpaint=stages[1],
        pair=stages[2],
        mllm=chatty,
        tuned_detokenizer=painter,
        detokenizer=adapted,
    )
    champion = run.one("evaluate_champion", "champion", tokens=tokens, scorecard=scorecard)
    decision = run.one("gate_model", "decision", scorecard=scorecard, champion=champion)
    version = run.one("register_model", "version", scorecard=scorecard, decision=decision)
    run.one("promote_model", "promotion", version=version)
    run("close_run", status=SimpleNamespace(state="SUCCEEDED"))


def prepared(recipe: Recipe, runs: Path, name: str) -> RunContext:
    """Returns the context of a new run in a folder of its own."""
    run_dir = runs / name
    (run_dir / "timings").mkdir(parents=True)
    return context_for(recipe, runs, run_dir, name)


def measured(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Runs the recipe both ways and returns the figures."""
    placed = with_clips(recipe, folder / "clips", console)
    as_json = placed.model_dump_json()
    pipeline = pipeline_named("train")  # imports kfp, which a cluster does once for all runs

    context = prepared(recipe, folder / "pipeline", "first")
    started = time.monotonic()
    carry_out(pipeline, {"recipe": as_json}, context, console)
    seconds = time.monotonic() - started
    steps = len(read_timings(Path(context.run_dir))) + 2  # looking first, and closing, have no timing

    again = prepared(recipe, folder / "pipeline", "again")
    started = time.monotonic()
    carry_out(pipeline, {"recipe": as_json}, again, console)
    rerun = time.monotonic() - started

    console.print(f"pipeline {seconds:.1f} s, the same again {rerun:.1f} s, {steps} steps")
    context = prepared(recipe, folder / "plain", "first")
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    started = time.monotonic()
    with watched(context, console, Path(context.run_dir)):
        run = Plain(as_json, context.model_dump_json(), Path(context.run_dir) / "artifacts")
        train_plainly(run)
    plain = time.monotonic() - started
    return {
        "pipeline_seconds": round(seconds, 1),
        "plain_seconds": round(plain, 1),
        "steps": steps,
        "overhead_s_per_step": round((seconds - plain) / steps, 2),
        "rerun_s_per_step": round(rerun / steps, 2),
    }


def main() -> None:
    """Runs the benchmark and prints its table and its line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="smoke", help="recipe to run")
    parser.add_argument("--rounds", type=int, default=1, help="repetitions; the medians are printed")
    arguments = parser.parse_args()
    recipe = recipe_named(arguments.recipe)
    rows = []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="visavis-pipeline-") as folder:
            console.print(f"round {number + 1} of {arguments.rounds}")
            rows.append(measured(recipe, Path(folder)))
    figures = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    figures["cpus"] = os.cpu_count() or 1
    table = Table(box=None, padding=(0, 2))
    table.add_column("figure")
    table.add_column("measured", justify="right")
    for key, value in figures.items():
        table.add_row(key, f"{value:g}")
    console.print(table)
    # Kubeflow's local runner replaces `print` by one that indents.
    sys.stdout.write(json.dumps({"recipe": recipe.name, **figures}) + "\n")


if __name__ == "__main__":
    try:
        main()
    except VisavisError as error:
        complain(error)
        sys.exit(USER_ERROR)
