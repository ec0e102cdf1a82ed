"""The tracker of a step: it writes down what to tell MLflow, and leaves the telling to others."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.tracking.client import Tracked
from visavis.tracking.courier import Post

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from PIL.Image import Image

log = logging.getLogger("visavis.tracking")

FOLDER = "tracking"
"""Where the calls wait, in the folder of the run."""
_PARAM_CHARS = 5_000
_SYSTEM_SECONDS = 10.0


class Tracker:
    """The MLflow run of one step. No method raises because of MLflow, and none waits for it.

    Args:
        context: The pipeline run.
        name: Name of the step.
        record: File in which the sender notes the MLflow run.
        curves: File that keeps the points of curves on this machine too, one JSON object per line.
    """

    def __init__(
        self, context: Tracked, name: str, record: Path | None = None, curves: Path | None = None
    ) -> None:
        self._name = name
        self._curves = curves
        self._on = bool(context.tracking_uri or os.environ.get("MLFLOW_RUN_ID"))
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._files = 0
        self._post: Post | None = None
        if not self._on:
            return
        folder = Path(context.run_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        # A second attempt must not write into what is left of a first one.
        self._path = folder / f"{name}.{time.time_ns()}.jsonl"
        self._stream = self._path.open("a")
        noted = os.path.relpath(record.resolve(), folder.resolve()) if record else ""
        adopted = os.environ.get("MLFLOW_RUN_ID", "")
        self._put("begin", {"name": name, "record": noted, "adopted": adopted})
        if not context.relayed:
            self._post = Post(context, folder, self._path.name).start()
        if context.system_metrics:
            threading.Thread(target=self._sample, name="system-metrics", daemon=True).start()

    @property
    def run_id(self) -> str | None:
        """MLflow's run, once it is known; stays None if another process does the sending."""
        return self._post.run_ids.get(self._path.name) if self._post else None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs settings; nested mappings become dotted names."""
        self._put("params", {key: str(value)[:_PARAM_CHARS] for key, value in flatten(params).items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs figures; with `step` they are points of curves."""
        values = {re.sub(r"[^\w\-. :/]", "_", name): float(value) for name, value in metrics.items()}
        if step is not None and self._curves is not None:
            self._append(self._curves, json.dumps({"step": step, "values": values}))
        self._put("metrics", {"values": values, "step": step or 0, "time": int(time.time() * 1000)})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags of the run."""
        self._put("tags", {name: str(value) for name, value in tags.items()})

    def log_figure(self, figure: Figure, path: str) -> None:
        """Logs a Matplotlib figure as `path` (`figures/loss.png`); it is drawn at once."""
        self._file(path, lambda file: figure.savefig(file, bbox_inches="tight", dpi=120))

    def log_image(self, image: np.ndarray | Image, path: str) -> None:
        """Logs a picture (PIL, or uint8 [H, W, 3]) as `path` (`samples/step-000100.png`)."""
        from PIL import Image as Pillow

        picture = image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)
        self._file(path, picture.save)

    def log_text(self, text: str, path: str) -> None:
        """Logs words as a text, HTML or JSON file."""
        self._file(path, lambda file: file.write_text(text))

    def log_artifact(self, source: Path, folder: str = "") -> None:
        """Logs a small file; a copy is taken at once. Weights do not belong here but in a model version."""
        path = f"{folder}/{source.name}" if folder else source.name
        self._file(path, lambda file: shutil.copyfile(source, file))

    def log_dataset(self, name: str, manifest: Mapping[str, Any]) -> None:
        """Logs a step's manifest as an input data set of the run."""
        self._put("dataset", {"name": name, "manifest": dict(manifest)})

    def close(self, status: str = "FINISHED") -> None:
        """Ends the run (`FINISHED`, `FAILED` or `KILLED`); adopted runs stay open."""
        if not self._on:
            return
        self._ended.set()
        self._put("end", {"status": status, "time": int(time.time() * 1000)})
        self._on = False
        self._stream.close()
        if self._post is not None:
            self._post.close()

    def _put(self, kind: str, value: dict[str, Any]) -> None:
        if not self._on:
            return
        line = json.dumps([kind, value])
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except OSError as error:
            log.warning("%s: could not note a call for MLflow: %s", self._name, error)

    def _append(self, path: Path, line: str) -> None:
        try:
            with path.open("a") as stream:
                stream.write(line + "\n")
        except OSError as error:
            log.warning("%s: could not keep a point of a curve: %s", self._name, error)

    def _file(self, path: str, write: Callable[[Path], Any]) -> None:
        if not self._on:
            return
        with self._lock:
            self._files += 1
            file = self._path.with_suffix("") / f"{self._files:05d}" / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file)
        except OSError as error:
            log.warning("%s: could not keep %s for MLflow: %s", self._name, path, error)
            return
        place = file.relative_to(self._path.parent).as_posix()
        self._put("file", {"file": place, "folder": str(Path(path).parent) if "/" in path else ""})

    def _sample(self) -> None:
        """Logs what this process uses, under the names by which MLflow's pages know such figures."""
        import psutil

        process = psutil.Process()
        process.cpu_percent()
        count = 0
        while not self._ended.wait(_SYSTEM_SECONDS):
            figures = {
                "system/cpu_utilization_percentage": process.cpu_percent(),
                "system/system_memory_usage_megabytes": process.memory_info().rss / 1e6,
            }
            self._put("metrics", {"values": figures, "step": count, "time": int(time.time() * 1000)})
            count += 1


@contextmanager
def step_run(
    context: Tracked, name: str, record: Path | None = None, curves: Path | None = None
) -> Iterator[Tracker]:
    """Opens the MLflow run of a step and closes it with the outcome of the block.

    Args:
        context: The pipeline run.
        name: Name of the step.
        record: File in which to note the MLflow run, so that a resumed step can point to its killed attempt.
        curves: File that keeps the points of curves on this machine too.
    """
    tracker = Tracker(context, name, record, curves)
    try:
        yield tracker
    except BaseException as error:
        tracker.set_tags({"error": f"{type(error).__name__}: {error}"[:_PARAM_CHARS]})
        tracker.close("FAILED")
        raise
    tracker.close()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested mapping as one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
