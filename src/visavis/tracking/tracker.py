"""The tracker of a step: a queue, a thread that empties it, and a place on disk for what was not sent."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.files import write_jsonl
from visavis.tracking.client import Sender, Tracked

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from PIL.Image import Image

log = logging.getLogger("visavis.tracking")

RETRY_SECONDS = 15.0
GRACE_SECONDS = 60.0
_BATCH_SECONDS = 1.0
_BATCH_CALLS = 500
# Codes by which MLflow says that the call itself is wrong, so that sending it again is of no use.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE"}
_PARAM_CHARS = 5_000

Operation = tuple[str, dict[str, Any]]


class Tracker:
    """The MLflow run of one step. No method raises because of MLflow, and none waits for it."""

    def __init__(self, context: Tracked, name: str, record: Path | None = None) -> None:
        self.run_id: str | None = None
        self._context = context
        self._name = name
        self._record = record
        self._spool = Path(context.run_dir) / "untracked" / name
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._pending: deque[Operation] = deque()
        self._closing = threading.Event()
        self._files = 0
        self._thread: threading.Thread | None = None
        if context.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"):
            self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
            self._thread.start()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs settings; nested mappings become dotted names."""
        self._put("params", {key: str(value)[:_PARAM_CHARS] for key, value in flatten(params).items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs figures; with `step` they are points of curves."""
        values = {re.sub(r"[^\w\-. :/]", "_", name): float(value) for name, value in metrics.items()}
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
        self._file(
            f"{folder}/{source.name}" if folder else source.name, lambda file: shutil.copyfile(source, file)
        )

    def log_dataset(self, name: str, manifest: Mapping[str, Any]) -> None:
        """Logs a step's manifest as an input data set of the run."""
        self._put("dataset", {"name": name, "manifest": dict(manifest)})

    def close(self, status: str = "FINISHED") -> None:
        """Sends what is left and ends the run (`FINISHED`, `FAILED` or `KILLED`); adopted runs stay open."""
        if self._thread is None:
            return
        self._put("end", {"status": status, "time": int(time.time() * 1000)})
        self._closing.set()
        self._queue.put(None)
        self._thread.join(GRACE_SECONDS)
        if self._thread.is_alive() or self._pending:
            self._keep_untracked()
        else:
            shutil.rmtree(self._spool, ignore_errors=True)

    def _put(self, kind: str, value: dict[str, Any]) -> None:
        if self._thread is not None:
            self._queue.put((kind, value))

    def _file(self, path: str, write: Callable[[Path], Any]) -> None:
        if self._thread is None:
            return
        self._files += 1
        file = self._spool / f"{self._files:05d}" / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file)
        except OSError as error:
            log.warning("%s: could not keep %s for MLflow: %s", self._name, path, error)
            return
        self._put("file", {"file": str(file), "folder": str(Path(path).parent) if "/" in path else ""})

    # What follows runs in the background thread.

    def _work(self) -> None:
        sender: Sender | None = None
        retry_at = 0.0
        open_queue = True
        while open_queue or self._pending:
            open_queue = open_queue and self._receive()
            if (
                open_queue
                and (not self._pending or time.monotonic() < retry_at)
                and not self._closing.is_set()
            ):
                continue
            try:
                sender = sender or Sender(self._context, self._name, self._record)
                self.run_id = sender.run_id
                while self._pending:
                    self._send_head(sender)
                retry_at = 0.0
            except Exception as error:  # whatever fails in tracking must not reach the training
                if not retry_at:
                    log.warning("%s: no MLflow for now, the step goes on (%s)", self._name, error)
                retry_at = time.monotonic() + RETRY_SECONDS
                if not open_queue:
                    return

    def _send_head(self, sender: Sender) -> None:
        """Sends the call at the head, together with further metrics if it is one of metrics."""
        from mlflow.exceptions import MlflowException

        kind = self._pending[0][0]
        alike = itertools.takewhile(
            lambda call: call[0] == kind, itertools.islice(self._pending, _BATCH_CALLS)
        )
        values = [value for _, value in alike] if kind == "metrics" else [self._pending[0][1]]
        try:
            sender.send(kind, values)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            log.warning("%s: MLflow refused %s: %s", self._name, kind, error)  # it would refuse it again
        for _ in values:
            self._pending.popleft()

    def _receive(self) -> bool:
        """Moves queued calls to the pending ones for up to a second; returns False after the last one."""
        deadline = time.monotonic() + _BATCH_SECONDS
        while True:
            try:
                operation = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return True
            if operation is None:
                return False
            self._pending.append(operation)

    def _keep_untracked(self) -> None:
        """Leaves what MLflow did not take on disk, readable for people and for a later upload."""
        rows = [{"kind": kind, **value} for kind, value in list(self._pending)]
        try:
            write_jsonl(self._spool / "calls.jsonl", rows)
        except OSError as error:
            log.warning("%s: %d MLflow calls are lost: %s", self._name, len(rows), error)
            return
        log.warning("%s: MLflow is not complete; %d calls are kept in %s", self._name, len(rows), self._spool)


@contextmanager
def step_run(context: Tracked, name: str, record: Path | None = None) -> Iterator[Tracker]:
    """Opens the MLflow run of a step and closes it with the outcome of the block.

    Args:
        context: The pipeline run.
        name: Name of the step.
        record: File in which to note the MLflow run, so that a resumed step can point to its killed attempt.
    """
    tracker = Tracker(context, name, record)
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
