"""One step as a job for processes of its own: told as text, so that it can be started anywhere.

Its twins are `LocalLauncher` here, which starts the processes on this machine, and `TrainJobLauncher`, which lets
Kubeflow's Trainer start them on a cluster. The processes run the same entry point: `python -m visavis.launch.jobs`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from visavis.steps.contracts import RunContext

_PIECE_CHARS = 90_000
"""Linux takes no argument of 128 KiB or more; a character of JSON is one byte here."""
_MODULE = "visavis.launch.jobs"


class JobFailed(Exception):
    """A process of a job ended with an error; what it says of itself is in the notes of the run."""


@dataclass(frozen=True)
class Job:
    """One step and all that it is told.

    Attributes:
        step: Name of its result.
        function: Function of `visavis.steps`, in the module of the same name.
        recipe: Resolved recipe as JSON.
        context: `RunContext` as JSON.
        inputs: Manifest of each input, as JSON: where the job runs, the files of this machine are not.
        options: Further arguments.
    """

    step: str
    function: str
    recipe: str
    context: str
    inputs: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        function: str,
        recipe: str,
        context: RunContext,
        inputs: Mapping[str, str | Path],
        options: Mapping[str, str],
    ) -> Job:
        """Returns the job of a step; what it is told of the cluster is what matters inside of a job: nothing.

        Args:
            function: Function of `visavis.steps`.
            recipe: Resolved recipe as JSON.
            context: The run.
            inputs: Manifest file of each input.
            options: Further arguments; they are a part of the step's name.
        """
        told = context.model_dump_json(exclude={"cluster", "looks"}, exclude_defaults=True)
        manifests = {name: Path(path).read_text() for name, path in inputs.items()}
        return cls("_".join([function, *options.values()]), function, recipe, told, manifests, dict(options))

    def arguments(self, processes: int, *, nodes: int = 1) -> list[str]:
        """Returns the arguments of `python` that do the job.

        Args:
            processes: Processes of this node; several, and those of several nodes, are started by `torchrun`.
            nodes: Nodes; where the others are, `torchrun` learns from its environment.
        """
        text = json.dumps(asdict(self))
        pieces = [text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS)]
        if processes * nodes == 1:
            return ["-m", _MODULE, *pieces]
        shared = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        return [*shared, *(["--standalone"] if nodes == 1 else []), "-m", _MODULE, *pieces]

    def do(self) -> None:
        """Does it in this process, which may be one of several."""
        module = importlib.import_module(f"visavis.steps.{self.function}")
        with tempfile.TemporaryDirectory(prefix="visavis-job-") as folder:
            files = {name: Path(folder) / f"{name}.json" for name in self.inputs}
            for name, file in files.items():
                file.write_text(self.inputs[name])
            output = Path(folder) / "output.json"
            getattr(module, self.function)(self.recipe, self.context, files, output, **self.options)


class Launcher(Protocol):
    """Whoever has jobs done."""

    def run(self, job: Job) -> None:
        """Has a job done; when this returns, its result is in the store.

        Raises:
            JobFailed: If one of its processes ended with an error.
            VisavisError: If it could not be run at all; `TransientError` if trying again may help.
            SystemExit: With `os.EX_TEMPFAIL`, the engine's `RESUME_ME`, if it was asked to stop and saved its state.
        """
        ...


class LocalLauncher:
    """Starts the processes of a job on this machine, and hands SIGTERM on to them.

    Args:
        processes: How many share the job.
        log: File that takes what they print; None: they print where this process does.
    """

    def __init__(self, processes: int, log: Path | None = None) -> None:
        self._processes = processes
        self._log = log

    def run(self, job: Job) -> None:
        """Runs a job; see `Launcher`."""
        code, asked = self._ended([sys.executable, *job.arguments(self._processes)])
        # torchrun ends with 1 whatever its processes end with, and before the training began a process just dies.
        if code == os.EX_TEMPFAIL or (code and asked):
            raise SystemExit(os.EX_TEMPFAIL)
        if code:
            raise JobFailed(f"step {job.step} ended with {code}")

    def _ended(self, command: Sequence[str]) -> tuple[int, bool]:
        """Runs a command; returns its exit code, and whether it was asked to stop."""
        stream = self._log.open("a") if self._log else None
        try:
            with (
                subprocess.Popen(command, stdout=stream, stderr=stream) as process,
                _hand_on(process) as asked,
            ):
                code = process.wait()
        finally:
            if stream is not None:
                stream.close()
        return code, bool(asked)


@contextmanager
def _hand_on(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Sends SIGTERM on to a process; yields those that came. Python lets only the main thread listen."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def send(number: int, _: object) -> None:
        asked.append(number)
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, send)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def main(pieces: Sequence[str]) -> None:
    """Does the job that the arguments of this process tell."""
    from visavis.training.engine import ending_at_once

    with ending_at_once():
        Job(**json.loads("".join(pieces))).do()


if __name__ == "__main__":
    main(sys.argv[1:])
