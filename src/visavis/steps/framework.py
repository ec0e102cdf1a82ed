"""What every pipeline step has in common: a content-addressed result, resumable work, a ledger that adds up.

A step's result lies in the store (`visavis.steps.store`) under its key. If it is there, the step is done. The last
act of a step is one that makes its result visible, so a reader sees a whole one or none.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from visavis import s3
from visavis.errors import VisavisError
from visavis.files import read_jsonl, sha256_file, write_atomic, write_json
from visavis.mirror import mirrored
from visavis.packs import Pack, load_pack
from visavis.steps.contracts import Manifest, RunContext, Unmade
from visavis.steps.keys import code_version, content_key, resolve_section
from visavis.steps.store import CURVES_SUFFIX, MANIFEST_NAME, RECORD_SUFFIX, Store, open_store
from visavis.steps.timings import timed
from visavis.tracking import Tracker, step_run

if TYPE_CHECKING:
    from visavis.recipes import Recipe
    from visavis.training.config import EngineConfig

__all__ = ["Manifest", "RunContext", "StepJob", "StepResult", "run_step"]

log = logging.getLogger("visavis.steps")

ENGINE = ("engine.precision", "engine.deepspeed", "engine.early_stop_points")
"""What changes the result of a training step, of how it is run."""
LEDGER_NAME = "ledger.jsonl"
_SCRATCH = "_scratch"
_PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class StepResult:
    """What a body returns: the counts of its ledger and its figures."""

    counts: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class StepJob:
    """What a body works with.

    Attributes:
        name: Name of the step.
        key: Content key of the result.
        recipe_json: The resolved recipe.
        context: The run; its folder is on this machine.
        store: Where results lie.
        inputs: Manifest of each input.
        work: Folder to write the result into; may hold what a killed attempt left there.
        tracker: MLflow run of the step; never raises.
    """

    name: str
    key: str
    recipe_json: str
    context: RunContext
    store: Store
    inputs: dict[str, Manifest]
    work: Path
    tracker: Tracker
    _progress_at: float = 0.0

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as a typed object; parsed when first asked for, since a reused step needs none."""
        from visavis.recipes import Recipe

        return Recipe.model_validate_json(self.recipe_json)

    @cached_property
    def pack(self) -> Pack:
        """The pack of pretrained parts that the recipe names."""
        return load_pack(self.recipe.pack)

    @cached_property
    def scratch(self) -> Path:
        """Folder for checkpoints: it outlives kills and is removed when the step is done."""
        path = self.work / _SCRATCH
        path.mkdir(parents=True, exist_ok=True)
        return path

    @cached_property
    def engine(self) -> EngineConfig:
        """How to train: as the recipe says, with checkpoints in the store if this machine's disk may be lost."""
        engine = self.recipe.engine
        if engine.checkpoints:
            place = s3.below(engine.checkpoints, self.name, f"{self.key}.partial")
        else:
            place = self.store.checkpoints(self.name, self.key)
        return engine.model_copy(update={"checkpoints": place})

    def folder(self, name: str) -> Path:
        """Returns the folder of an input."""
        return self.inputs[name].folder

    def progress(self, done: float, total: float, label: str = "") -> None:
        """Tells whoever watches the run how far the step is; cheap enough for an inner loop."""
        now = time.monotonic()
        if now - self._progress_at < _PROGRESS_SECONDS and done < total:
            return
        self._progress_at = now
        path = Path(self.context.run_dir) / "progress" / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"done": done, "total": total, "label": label}))
        temporary.replace(path)


def run_step(
    name: str,
    body: Callable[[StepJob], StepResult],
    recipe: str,
    context: str,
    inputs: Mapping[str, str | Path],
    output: str | Path,
    section: Sequence[str],
    extra: Callable[[], str] | None = None,
    reuse: bool = True,
) -> Manifest:
    """Runs a step, or finds that it was run before.

    Args:
        name: Name of the step; with its variant if a step is run several times (`tune_mllm_inpaint`).
        body: The work itself.
        recipe: Resolved recipe as JSON.
        context: `RunContext` as JSON.
        inputs: Manifest file of each input.
        output: Manifest file to write.
        section: Dotted names of the recipe's fields that the step reads; `pack.NAME` for a part of the pack.
        extra: Gives a digest of what the step reads from outside the run.
        reuse: False for a step whose result also lies elsewhere (a registry) and is looked up anew.

    Returns:
        The manifest of the result.

    Raises:
        VisavisError: If an input is missing or the counts of the body do not add up.
        Unmade: If the run only looks, and the result is not there.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run = RunContext.model_validate_json(context)
    store = open_store(run.store)

    def opened() -> tuple[dict[str, Manifest], dict[str, Any], str]:
        manifests = {key: _opened(key, path) for key, path in inputs.items()}
        values = resolve_section(json.loads(recipe), section)
        digests = {key: manifest.digest for key, manifest in manifests.items()}
        outside = extra() if extra else ""
        return manifests, values, content_key(name, code_version(body.__module__), values, digests, outside)

    if run.skips(name):
        return _nothing(name, run, output)
    if run.looks:
        _, _, key = opened()
        if (found := _known(name, key, run, store)) is None:
            raise Unmade(key)
        return found
    if _rank():
        manifests, _, key = opened()
        return _followed(name, key, body, recipe, run, store, manifests)
    with (
        _run_folder(run, name) as folder,
        timed(name, folder, run.cluster.retries.not_again_seconds) as timing,
    ):
        run = run.model_copy(update={"run_dir": str(folder)})
        manifests, values, key = opened()
        timing["key"] = key
        with store.lock(name, key):
            manifest = _known(name, key, run, store, reuse)
            timing["status"] = "reused" if manifest else "ran"
            if manifest is None:
                work = store.work(name, key)
                work.mkdir(parents=True, exist_ok=True)
                with (
                    store.notes([(name, key)]) as notes,
                    step_run(
                        run,
                        name,
                        notes / name / f"{key}{RECORD_SUFFIX}",
                        notes / name / f"{key}{CURVES_SUFFIX}",
                    ) as tracker,
                ):
                    job = StepJob(name, key, recipe, run, store, manifests, work, tracker)
                    manifest = _worked(job, body, values, replace=not reuse or name in run.anew)
        for path in (Path(output), folder / "manifests" / f"{name}.json"):
            write_atomic(path, manifest.model_dump_json(indent=2) + "\n")
    log.info("%s %s in %.1f s: %s", name, timing["status"], timing["seconds"], _words(manifest))
    return manifest


def _run_folder(run: RunContext, name: str) -> AbstractContextManager[Path]:
    """Lends the part of the run's folder that a step writes; a failure of an earlier attempt is in it."""
    return mirrored(run.run_dir, f"*/{name}.*", [f"failures/{name}.json"])


def _rank() -> int:
    """Returns the number of this process among those that `torchrun` started for the step."""
    return int(os.environ.get("RANK", "0"))


def _followed(
    name: str,
    key: str,
    body: Callable[[StepJob], StepResult],
    recipe: str,
    run: RunContext,
    store: Store,
    manifests: dict[str, Manifest],
) -> Manifest:
    """Takes part in a step that the first process does: reads the same, trains along, keeps nothing."""
    stored = _known(name, key, run, store)
    if stored is not None:
        return stored
    os.environ.pop("MLFLOW_RUN_ID", None)
    with tempfile.TemporaryDirectory() as scratch:
        silent = run.model_copy(update={"tracking_uri": "", "run_dir": scratch})
        job = StepJob(name, key, recipe, silent, store, manifests, Path(scratch), Tracker(silent, name))
        job.scratch = store.work(name, key) / _SCRATCH  # where the first process keeps checkpoints
        counts = body(job).counts
    return Manifest(step=name, key=key, uri="", counts=counts, files={})


def _opened(name: str, path: str | Path) -> Manifest:
    manifest = _read(path)
    if not s3.is_remote(manifest.uri) and not manifest.folder.is_dir():
        raise VisavisError(
            f"input {name}: folder {manifest.uri} of step {manifest.step} does not exist",
            fix="run the whole pipeline again: the step makes it anew",
        )
    return manifest


def _read(path: str | Path) -> Manifest:
    """Reads a manifest from a file or an `s3://` address."""
    if not s3.is_remote(str(path)):
        return Manifest.read(path)
    if (found := s3.read(str(path))) is None:
        raise VisavisError(
            f"manifest {path} does not exist", fix="give the address of a result's manifest.json"
        )
    return Manifest.parse(found[0], str(path))


def _nothing(name: str, run: RunContext, output: str | Path) -> Manifest:
    """Writes the manifest of a step that is skipped; one part is the least that a loop over parts can do."""
    counts = {"in": 0, "kept": 0, "dropped": {}}
    manifest = Manifest(step=name, key="", uri=run.run_dir, counts=counts, files={}, metrics={"parts": 1})
    write_atomic(Path(output), manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _known(name: str, key: str, run: RunContext, store: Store, reuse: bool = True) -> Manifest | None:
    """Returns the result that need not be made: the one that is given for the step, or the one in the store."""
    if place := run.given.get(name):
        given = _opened(name, place)
        if given.step != name:
            raise VisavisError(
                f"{place} is the result of {given.step}, not of {name}",
                fix=f"give --from {given.step}, or the manifest of a result of {name}",
            )
        return given
    return store.find(name, key) if reuse and name not in run.anew else None


def _worked(
    job: StepJob, body: Callable[[StepJob], StepResult], values: Mapping[str, Any], replace: bool
) -> Manifest:
    """Runs the body, checks what it did and publishes the result."""
    job.tracker.log_params(values)
    for name, manifest in job.inputs.items():
        job.tracker.log_dataset(name, manifest.model_dump())
    started = time.monotonic()
    result = body(job)
    shutil.rmtree(job.work / _SCRATCH, ignore_errors=True)
    (job.work / MANIFEST_NAME).unlink(missing_ok=True)
    manifest = _manifest(job, result)
    job.tracker.log_metrics(
        {**manifest.metrics, **_count_metrics(manifest), "seconds": time.monotonic() - started}
    )
    write_json(job.work / MANIFEST_NAME, manifest.model_dump())
    for name in (MANIFEST_NAME, LEDGER_NAME):
        if (job.work / name).is_file():
            job.tracker.log_artifact(job.work / name)
    job.tracker.set_tags({"step": job.name, "step.key": job.key, "data.manifest": manifest.digest})
    return job.store.publish(manifest, job.work, replace)


def _manifest(job: StepJob, result: StepResult) -> Manifest:
    files = {
        path.relative_to(job.work).as_posix(): sha256_file(path)
        for path in sorted(job.work.rglob("*"))
        if path.is_file()
    }
    _check_ledger(job, result)
    try:
        manifest = Manifest(
            step=job.name,
            key=job.key,
            uri="",
            counts=result.counts,
            files=files,
            metrics={name: float(value) for name, value in result.metrics.items()},
            inputs={name: manifest.key for name, manifest in job.inputs.items()},
        )
    except ValidationError as error:
        raise VisavisError(
            f"step {job.name}: {error.errors()[0]['msg']}",
            fix="give each input item exactly one ledger row, kept or dropped with its reason",
        ) from error
    return manifest.model_copy(update={"uri": job.store.address(manifest)})


def _check_ledger(job: StepJob, result: StepResult) -> None:
    file = job.work / LEDGER_NAME
    if not file.is_file():
        return
    rows = read_jsonl(file)
    kept = sum(row["status"] == "kept" for row in rows)
    if (len(rows), kept) != (result.counts.get("in"), result.counts.get("kept")):
        raise VisavisError(
            f"step {job.name}: the ledger has {len(rows)} rows, {kept} kept; the counts say {result.counts}",
            fix="return the counts of Ledger.close()",
        )


def _count_metrics(manifest: Manifest) -> dict[str, float]:
    counts = manifest.counts
    dropped = {f"items.dropped.{reason}": float(count) for reason, count in counts["dropped"].items()}
    return {"items.in": float(counts["in"]), "items.kept": float(counts["kept"]), **dropped}


def _words(manifest: Manifest) -> str:
    counts = manifest.counts
    dropped = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items())
    return f"kept {counts['kept']} of {counts['in']}" + (f" (dropped: {dropped})" if dropped else "")
