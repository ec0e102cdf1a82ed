"""The way of a call from the file it was written into to MLflow."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from visavis.files import read_json, write_json
from visavis.tracking.client import Sender, Tracked

log = logging.getLogger("visavis.tracking")

RETRY_SECONDS = 15.0
GRACE_SECONDS = 60.0
_POLL_SECONDS = 0.5
_BATCH_CALLS = 500
# Codes by which MLflow says that the call itself is wrong, so that sending it again is of no use.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE"}


class Courier:
    """Carries the calls of one step.

    Attributes:
        file: Where the step writes its calls, one JSON object per line; the first names the step.
        ended: Whether the step's last call was sent.
        run_id: The step's run in MLflow, once it is known.
    """

    def __init__(self, context: Tracked, file: Path) -> None:
        self.file = file
        self.ended = False
        self._context = context
        self._offset = 0
        self._name = self._adopted = ""
        self._record: Path | None = None
        # How far an earlier courier came, if its process died.
        self._state = file.with_suffix(".state")
        state: dict[str, Any] = read_json(self._state) if self._state.is_file() else {}
        self.run_id: str | None = state.get("run_id")
        self._sent = self._noted = self._skipped = int(state.get("sent", 0))
        self._pending: deque[tuple[str, dict[str, Any]]] = deque()
        self._sender: Sender | None = None
        self._retry_at = 0.0

    def pump(self, *, last: bool = False) -> None:
        """Sends what was written since; never raises.

        Args:
            last: Try even if MLflow was out of reach a moment ago, for nobody will try again.
        """
        self._read()
        if not self._pending or (time.monotonic() < self._retry_at and not last):
            return
        try:
            if self._sender is None:
                self._sender = Sender(
                    self._context, self._name, self._record, self._adopted, self.run_id or ""
                )
                self.run_id = self._sender.run_id
            while self._pending:
                self._send_head(self._sender)
            self._retry_at = 0.0
        except Exception as error:  # whatever fails in tracking must not reach the training
            if not self._retry_at:
                log.warning("%s: no MLflow for now, the step goes on (%s)", self._name, error)
            self._retry_at = time.monotonic() + RETRY_SECONDS
        if self.ended:
            self.file.unlink(missing_ok=True)
            self._state.unlink(missing_ok=True)
            shutil.rmtree(self.file.with_suffix(""), ignore_errors=True)
        elif self._sent > self._noted:
            with contextlib.suppress(OSError):
                write_json(self._state, {"run_id": self.run_id, "sent": self._sent})
                self._noted = self._sent

    def abandon(self) -> None:
        """Marks the run of a step that died as killed."""
        if self._sender is not None and not self.ended:
            self._pending.append(("end", {"status": "KILLED", "time": int(time.time() * 1000)}))
            self.pump(last=True)

    def _read(self) -> None:
        """Takes over the whole lines that are new; a half-written one waits.

        Files are named relative to that of the calls, since all of them may have been moved by now.
        """
        with self.file.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            kind, value = json.loads(line)
            if kind == "begin":
                self._name, self._adopted = value["name"], value["adopted"]
                self._record = self._place(value["record"]) if value["record"] else None
            elif kind == "file":
                value["file"] = str(self._place(value["file"]))
            if self._skipped:
                self._skipped -= 1
            else:
                self._pending.append((kind, value))

    def _place(self, name: str) -> Path:
        return Path(os.path.normpath(self.file.parent.resolve() / name))

    def _send_head(self, sender: Sender) -> None:
        """Sends the call at the head, together with further metrics if it is one of metrics."""
        from mlflow.exceptions import MlflowException

        kind = self._pending[0][0]
        head = itertools.islice(self._pending, _BATCH_CALLS)
        alike = itertools.takewhile(lambda call: call[0] == kind, head)
        values = [value for _, value in alike] if kind == "metrics" else [self._pending[0][1]]
        try:
            sender.send(kind, values)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            log.warning("%s: MLflow refused %s: %s", self._name, kind, error)  # it would refuse it again
        for _ in values:
            self._pending.popleft()
        self._sent += len(values)
        self.ended = kind == "end"


class Post:
    """A thread that carries the calls of all steps that write into a folder, or of one of them.

    Args:
        context: The run.
        folder: Where the steps write.
        pattern: Which files of the folder are carried.
    """

    def __init__(self, context: Tracked, folder: Path, pattern: str = "*.jsonl") -> None:
        self._context, self._folder, self._pattern = context, folder, pattern
        self._couriers: dict[Path, Courier] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def start(self) -> Post:
        """Begins to carry."""
        self._thread.start()
        return self

    def close(self) -> bool:
        """Sends what is left, for as long as a minute; returns whether nothing stayed behind."""
        self._closing.set()
        self._thread.join(GRACE_SECONDS)
        left = sorted(self._folder.glob(self._pattern))
        if left:
            log.warning(
                "MLflow is not complete: the calls of %d steps are kept in %s", len(left), self._folder
            )
        return not left

    @property
    def run_ids(self) -> dict[str, str | None]:
        """MLflow's run of each file that is or was carried."""
        return {path.name: courier.run_id for path, courier in self._couriers.items()}

    def _work(self) -> None:
        while not self._closing.wait(_POLL_SECONDS):
            self._round()
        self._round(last=True)
        for courier in self._couriers.values():
            courier.abandon()

    def _round(self, *, last: bool = False) -> None:
        for path in sorted(self._folder.glob(self._pattern)):
            courier = self._couriers.setdefault(path, Courier(self._context, path))
            if not courier.ended:
                courier.pump(last=last)
