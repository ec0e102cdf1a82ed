"""Guarded work: a function runs in child processes that may hang, crash or eat memory without taking the run along.

Video files are hostile input to native code. A child that does not answer in time is killed, a child that
dies or runs out of its memory is replaced, and only the item at fault is lost.
"""

from __future__ import annotations

import importlib
import os
import pickle
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

_LOOKAHEAD = 3
# A child's start loads libraries; on a busy machine that takes long and is not the item's fault.
_START_S = 180.0
# How others end a process: an operator, a scheduler, a kernel that is short of memory. No item does this.
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
# A child whose link broke ends in no time; its exit status says why.
_DEATH_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What became of one call: a value, or why there is none (`error`, `crashed`, `timeout`, `memory`)."""

    value: Any = None
    failure: str | None = None
    message: str = ""


class _Child:
    """One child process that calls `module:function` for each item it is sent."""

    def __init__(self, target: str, memory_mb: int) -> None:
        self._target, self._memory_mb = target, memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Connection | None = None
        self._closed = False

    def call(self, item: Any, timeout_s: float) -> Outcome:
        outcome, status = self._attempt(item, timeout_s)
        if status in _FROM_OUTSIDE:
            outcome, _ = self._attempt(item, timeout_s)
        return outcome

    def interrupt(self) -> None:
        """Ends the child for good; a call that waits for it in another thread returns."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()

    def _attempt(self, item: Any, timeout_s: float) -> tuple[Outcome, int | None]:
        """Returns the outcome and, if the child has died in the meantime, its exit status."""
        try:
            link = self._start()
            link.send(item)
            if not link.poll(timeout_s):
                self.stop()
                return Outcome(failure="timeout", message=f"no answer in {timeout_s:g} s"), None
            outcome = Outcome(*pickle.loads(link.recv_bytes()))
        except (EOFError, OSError):
            status = self.stop(_DEATH_S)
            return Outcome(failure="crashed", message=f"the worker ended with exit status {status}"), status
        if outcome.failure == "memory":
            # What the item has left behind in the heap would be held against the next one.
            self.stop()
        return outcome, None

    def _start(self) -> Connection:
        if self._closed:
            raise OSError("no more work is wanted")
        if self._link is None:
            self._link, theirs = Pipe()
            command = [sys.executable, "-m", "visavis.data.video.guard", str(theirs.fileno()), self._target]
            # A fresh interpreter instead of multiprocessing: nothing of the parent's main module runs again.
            self._process = subprocess.Popen(
                [*command, str(self._memory_mb)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
            theirs.close()
            if not self._link.poll(_START_S):
                raise OSError("the worker did not start")
            self._link.recv()
        return self._link

    def stop(self, patience_s: float = 0.0) -> int | None:
        """Ends the child; returns its exit status if it dies by itself within `patience_s`."""
        link, process = self._link, self._process
        self._link = self._process = None
        if link is not None:
            link.close()
        if process is None:
            return None
        try:
            return process.wait(patience_s) if patience_s else process.poll()
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()
            process.wait()


def guarded_map(
    target: str, items: Iterable[Any], workers: int, timeout_s: float, memory_mb: int = 0
) -> Iterator[Outcome]:
    """Calls a function for each item and yields the outcomes in the order of the items.

    A child that is killed from outside does not cost the item it had at hand: that is tried once more.

    Args:
        target: `module:function` of a function with one argument; items and results travel pickled.
        items: Consumed only a few items ahead, so results do not pile up in memory.
        workers: Child processes; 0 calls the function here, without protection from hangs and crashes.
        timeout_s: Longest wait for one item.
        memory_mb: Most memory in MiB that a child may take beyond what it needs to start; 0: no limit. Only
            Linux enforces it.
    """
    if workers == 0:
        function = _resolve(target)
        yield from (_called(function, item) for item in items)
        return
    children = [_Child(target, memory_mb) for _ in range(workers)]
    free: SimpleQueue[_Child] = SimpleQueue()
    for child in children:
        free.put(child)

    def call(item: Any) -> Outcome:
        child = free.get()
        try:
            return child.call(item, timeout_s)
        finally:
            free.put(child)

    pending: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            for item in items:
                pending.append(threads.submit(call, item))
                if len(pending) >= workers * _LOOKAHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # Before the threads are waited for: they may be waiting for a child that hangs.
            for future in pending:
                future.cancel()
            for child in children:
                child.interrupt()
            threads.shutdown()
            for child in children:
                child.stop()


def _resolve(target: str) -> Callable[[Any], Any]:
    module, _, name = target.partition(":")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return function


def _called(function: Callable[[Any], Any], item: Any) -> Outcome:
    try:
        return Outcome(value=function(item))
    except MemoryError as error:
        return Outcome(failure="memory", message=str(error) or "too little memory")
    except Exception as error:
        return Outcome(failure="error", message=f"{type(error).__name__}: {error}")


def _packed(outcome: Outcome) -> bytes:
    # Without the class: here it belongs to `__main__`, which is something else in the parent.
    return pickle.dumps((outcome.value, outcome.failure, outcome.message), pickle.HIGHEST_PROTOCOL)


def _limit_memory(memory_mb: int) -> None:
    """Limits what this process may take from now on; what its libraries hold already does not count."""
    status = Path("/proc/self/status")
    if memory_mb <= 0 or not status.is_file():
        return
    import resource

    held = re.search(r"^VmData:\s*(\d+) kB", status.read_text(), re.MULTILINE)
    most = (int(held[1]) << 10 if held else 0) + (memory_mb << 20)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _serve(descriptor: int, target: str, memory_mb: int) -> None:
    """The child's loop; it ends when the parent closes the link or dies."""
    function = _resolve(target)
    _limit_memory(memory_mb)
    with Connection(descriptor) as link:
        link.send("ready")
        while True:
            try:
                item = link.recv()
            except EOFError:
                return
            outcome = _called(_packed, _called(function, item))
            link.send_bytes(outcome.value if outcome.failure is None else _packed(outcome))


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
