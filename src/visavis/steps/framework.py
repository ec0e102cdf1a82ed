"""What every pipeline step has in common: a content-addressed result, resumable work, a ledger that adds up.

A step's result lies in `<store>/<step>/<key>/`. If it is there, the step is done. While a step works it
writes into `<key>.partial/`, which outlives a kill: the next attempt finds its checkpoints there. The last
act is one rename, so a reader sees a whole result or none.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import resource
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from visavis.errors import TransientError, VisavisError, storage_error
from visavis.files import read_json, read_jsonl, sha256_file, write_atomic, write_json
from visavis.packs import Pack, load_pack
from visavis.steps.contracts import Manifest, RunContext, Unmade
from visavis.steps.keys import code_version, content_key, resolve_section
from visavis.tracking import Tracker, step_run

if TYPE_CHECKING:
    from visavis.recipes import Recipe

__all__ = ["Manifest", "RunContext", "StepJob", "StepResult", "read_timings", "run_step"]

log = logging.getLogger("visavis.steps")

MANIFEST_NAME = "manifest.json"
ENGINE = ("engine.precision", "engine.deepspeed", "engine.early_stop_points")
"""What changes the result of a training step, of how it is run."""
LEDGER_NAME = "ledger.jsonl"
# Beside a result, not in it: two runs of equal work differ in these.
RECORD_SUFFIX, CURVES_SUFFIX = ".run.json", ".curves.jsonl"
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
        context: The run.
        inputs: Manifest of each input.
        work: Folder to write the result into; may hold what a killed attempt left there.
        tracker: MLflow run of the step; never raises.
    """

    name: str
    key: str
    recipe_json: str
    context: RunContext
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

    def opened() -> tuple[dict[str, Manifest], dict[str, Any], Path]:
        manifests = {key: _opened(key, path) for key, path in inputs.items()}
        values = resolve_section(json.loads(recipe), section)
        digests = {key: manifest.digest for key, manifest in manifests.items()}
        outside = extra() if extra else ""
        key = content_key(name, code_version(body.__module__), values, digests, outside)
        return manifests, values, Path(run.store).resolve() / name / key

    if run.skips(name):
        return _nothing(name, run, output)
    if run.looks:
        _, _, final = opened()
        if (found := _known(name, run, final)) is None:
            raise Unmade(final.name)
        return found
    if _rank():
        manifests, _, final = opened()
        return _followed(name, body, recipe, run, manifests, final)
    with _timed(name, run) as timing:
        manifests, values, final = opened()
        key = timing["key"] = final.name
        final.parent.mkdir(parents=True, exist_ok=True)
        with _lock(name, final.with_suffix(".lock")):
            manifest = _known(name, run, final, reuse)
            timing["status"] = "reused" if manifest else "ran"
            if manifest is None:
                work = final.with_suffix(".partial")
                work.mkdir(exist_ok=True)
                record, curves = final.with_suffix(RECORD_SUFFIX), final.with_suffix(CURVES_SUFFIX)
                with step_run(run, name, record, curves) as tracker:
                    job = StepJob(name, key, recipe, run, manifests, work, tracker)
                    manifest = _worked(job, body, values, final)
        for path in (Path(output), Path(run.run_dir) / "manifests" / f"{name}.json"):
            write_atomic(path, manifest.model_dump_json(indent=2) + "\n")
    log.info("%s %s in %.1f s: %s", name, timing["status"], timing["seconds"], _words(manifest))
    return manifest


def _rank() -> int:
    """Returns the number of this process among those that `torchrun` started for the step."""
    return int(os.environ.get("RANK", "0"))


def _followed(
    name: str,
    body: Callable[[StepJob], StepResult],
    recipe: str,
    run: RunContext,
    manifests: dict[str, Manifest],
    final: Path,
) -> Manifest:
    """Takes part in a step that the first process does: reads the same, trains along, keeps nothing."""
    stored = _known(name, run, final)
    if stored is not None:
        return stored
    os.environ.pop("MLFLOW_RUN_ID", None)
    with tempfile.TemporaryDirectory() as scratch:
        silent = run.model_copy(update={"tracking_uri": "", "run_dir": scratch})
        job = StepJob(name, final.name, recipe, silent, manifests, Path(scratch), Tracker(silent, name))
        job.scratch = final.with_suffix(".partial") / _SCRATCH  # where the first process keeps checkpoints
        counts = body(job).counts
    return Manifest(step=name, key=final.name, uri=str(final), counts=counts, files={})


def _opened(name: str, path: str | Path) -> Manifest:
    manifest = Manifest.read(path)
    if not manifest.folder.is_dir():
        raise VisavisError(
            f"input {name}: folder {manifest.uri} of step {manifest.step} does not exist",
            fix="run the whole pipeline again: the step makes it anew",
        )
    return manifest


def _nothing(name: str, run: RunContext, output: str | Path) -> Manifest:
    """Writes the manifest of a step that is skipped; one part is the least that a loop over parts can do."""
    counts = {"in": 0, "kept": 0, "dropped": {}}
    manifest = Manifest(step=name, key="", uri=run.run_dir, counts=counts, files={}, metrics={"parts": 1})
    write_atomic(Path(output), manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _known(name: str, run: RunContext, final: Path, reuse: bool = True) -> Manifest | None:
    """Returns the result that need not be made: the one that is given for the step, or the one in the store."""
    if place := run.given.get(name):
        given = _opened(name, place)
        if given.step != name:
            raise VisavisError(
                f"{place} is the result of {given.step}, not of {name}",
                fix=f"give --from {given.step}, or the manifest of a result of {name}",
            )
        return given
    return _stored(final) if reuse and name not in run.anew else None


def _stored(final: Path) -> Manifest | None:
    """Returns the manifest of a stored result if every file it names is still there."""
    file = final / MANIFEST_NAME
    if not file.is_file():
        return None
    manifest = Manifest.read(file)
    missing = next((name for name in manifest.files if not (final / name).is_file()), None)
    if missing is not None:
        log.warning("%s: %s of the stored result is missing: it is made again", manifest.step, missing)
        return None
    return manifest.model_copy(update={"uri": str(final)})  # the store may have been moved


def _worked(
    job: StepJob, body: Callable[[StepJob], StepResult], values: Mapping[str, Any], final: Path
) -> Manifest:
    """Runs the body, checks what it did and gives the result its final name."""
    job.tracker.log_params(values)
    for name, manifest in job.inputs.items():
        job.tracker.log_dataset(name, manifest.model_dump())
    started = time.monotonic()
    result = body(job)
    shutil.rmtree(job.work / _SCRATCH, ignore_errors=True)
    (job.work / MANIFEST_NAME).unlink(missing_ok=True)
    manifest = _manifest(job, result, final)
    job.tracker.log_metrics(
        {**manifest.metrics, **_count_metrics(manifest), "seconds": time.monotonic() - started}
    )
    write_json(job.work / MANIFEST_NAME, manifest.model_dump())
    for name in (MANIFEST_NAME, LEDGER_NAME):
        if (job.work / name).is_file():
            job.tracker.log_artifact(job.work / name)
    job.tracker.set_tags({"step": job.name, "step.key": job.key, "data.manifest": manifest.digest})
    if final.exists():
        shutil.rmtree(final)  # a result with missing files
    job.work.replace(final)
    return manifest


def _manifest(job: StepJob, result: StepResult, final: Path) -> Manifest:
    files = {
        path.relative_to(job.work).as_posix(): sha256_file(path)
        for path in sorted(job.work.rglob("*"))
        if path.is_file()
    }
    _check_ledger(job, result)
    try:
        return Manifest(
            step=job.name,
            key=job.key,
            uri=str(final),
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


@contextmanager
def _lock(name: str, path: Path) -> Iterator[None]:
    """Holds the lock of a result; the kernel frees it when its holder dies."""
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another run is making this result; waiting for it", name)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _timed(name: str, run: RunContext) -> Iterator[dict[str, Any]]:
    """Keeps `run_dir/timings/<step>.json` true at every moment, and leaves the reason of a failure."""
    folder = Path(run.run_dir)
    started = time.monotonic()
    timing: dict[str, Any] = {
        "step": name,
        "key": "",
        "status": "running",
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "seconds": 0.0,
        "peak_rss_mb": 0.0,
        "pid": os.getpid(),
    }
    path = folder / "timings" / f"{name}.json"
    refuse_again(folder, name, run.cluster.retries.not_again_seconds)
    (folder / "failures" / f"{name}.json").unlink(missing_ok=True)
    write_json(path, timing)
    try:
        yield timing
    except SystemExit:
        timing["status"] = "stopped"  # asked to, with its state saved
        raise
    except BaseException as error:
        timing["status"] = "failed"
        note_failure(folder, name, error)
        raise
    finally:
        timing["seconds"] = round(time.monotonic() - started, 3)
        timing["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        _write_anyway(path, timing)


def refuse_again(folder: Path, name: str, seconds: int) -> None:
    """Ends at once what was just ended by a mistake of its user: trying again helps against lost machines only.

    Kubeflow tries a failed step again whatever it failed of.

    Args:
        folder: Folder of the run.
        name: Name of the step.
        seconds: How long the note of a failure counts; 0 on this machine, where only people try again.

    Raises:
        VisavisError: The same as then.
    """
    path = folder / "failures" / f"{name}.json"
    failure: dict[str, Any] = read_json(path) if seconds and path.is_file() else {"lasting": False}
    if failure["lasting"] and time.time() - failure["at"] < seconds:
        raise VisavisError(failure["message"], fix=failure["fix"])


def note_failure(folder: Path, name: str, error: BaseException) -> None:
    """Leaves the reason of a failure in the folder of a run."""
    known = storage_error(error) if isinstance(error, OSError) else error
    told = isinstance(known, VisavisError)
    note = {
        "step": name,
        "message": known.message if isinstance(known, VisavisError) else f"{type(error).__name__}: {error}",
        "fix": known.fix if isinstance(known, VisavisError) else "",
        "lasting": told and not isinstance(known, TransientError),
        "at": time.time(),
        "traceback": traceback.format_exc(),
    }
    _write_anyway(folder / "failures" / f"{name}.json", note)


def _write_anyway(path: Path, value: dict[str, Any]) -> None:
    """Writes a report; on a full disk the error that led here is the one that people must see."""
    try:
        write_json(path, value)
    except OSError as error:
        log.warning("could not write %s: %s", path, error)


def read_timings(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the timings of a run's steps in the order in which they began."""
    return sorted(
        (read_json(path) for path in (run_dir / "timings").glob("*.json")), key=lambda row: row["started"]
    )
