"""Guarded work: a function runs in child processes that may hang or crash without taking the run along.

Video files are hostile input to native code. A child that does not answer in time is killed, a child that
dies is replaced, and only the item at fault is lost.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

_LOOKAHEAD = 3
# A child's start loads libraries; on a busy machine that takes long and is not the item's fault.
_START_S = 180.0


@dataclass(frozen=True)
class Outcome:
    """What became of one call: a value, or why there is none (`error`, `crashed`, `timeout`)."""

    value: Any = None
    failure: str | None = None
    message: str = ""


class _Child:
    """One child process that calls `module:function` for each item it is sent."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Connection | None = None

    def call(self, item: Any, timeout_s: float) -> Outcome:
        try:
            link = self._start()
            link.send(item)
            if not link.poll(timeout_s):
                self.stop()
                return Outcome(failure="timeout", message=f"no answer in {timeout_s:g} s")
            good, value = link.recv()
        except (EOFError, OSError):
            code = self._process.wait() if self._process else None
            self.stop()
            return Outcome(failure="crashed", message=f"the worker ended with exit status {code}")
        return Outcome(value=value) if good else Outcome(failure="error", message=value)

    def _start(self) -> Connection:
        if self._link is None:
            self._link, theirs = Pipe()
            # A fresh interpreter instead of multiprocessing: nothing of the parent's main module runs again.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "visavis.data.guard", str(theirs.fileno()), self._target],
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

    def stop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def guarded_map(target: str, items: Iterable[Any], workers: int, timeout_s: float) -> Iterator[Outcome]:
    """Calls a function for each item and yields the outcomes in the order of the items.

    Args:
        target: `module:function` of a function with one argument; items and results travel pickled.
        items: Consumed only a few items ahead, so results do not pile up in memory.
        workers: Child processes; 0 calls the function here, without protection from hangs and crashes.
        timeout_s: Longest wait for one item.
    """
    if workers == 0:
        function = _resolve(target)
        yield from (_called(function, item) for item in items)
        return
    children = [_Child(target) for _ in range(workers)]
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
    try:
        with ThreadPoolExecutor(workers) as threads:
            for item in items:
                pending.append(threads.submit(call, item))
                if len(pending) >= workers * _LOOKAHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        for child in children:
            child.stop()


def _resolve(target: str) -> Callable[[Any], Any]:
    module, _, name = target.partition(":")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return function


def _called(function: Callable[[Any], Any], item: Any) -> Outcome:
    try:
        return Outcome(value=function(item))
    except Exception as error:
        return Outcome(failure="error", message=f"{type(error).__name__}: {error}")


def _serve(descriptor: int, target: str) -> None:
    """The child's loop; it ends when the parent closes the link or dies."""
    function = _resolve(target)
    with Connection(descriptor) as link:
        link.send("ready")
        while True:
            try:
                item = link.recv()
            except EOFError:
                return
            outcome = _called(function, item)
            good = outcome.failure is None
            link.send((good, outcome.value if good else outcome.message))


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2])
