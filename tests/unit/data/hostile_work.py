"""A function that misbehaves on demand; runs in guarded workers, so it imports little."""

import os
import signal
import time
from pathlib import Path


def hostile(item: str) -> str:
    """Works, hangs, crashes, fails or hogs, as the item says; runs in a guarded worker.

    `kill PATH` kills its process unless PATH exists already, and leaves PATH behind; `pid` tells which it is.
    """
    if item == "hang":
        time.sleep(60)
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "fail":
        raise ValueError("no")
    if item == "hog":
        bytearray(1 << 31)
    if item == "gush":
        return "x" * (150 << 20)
    if item == "pid":
        return str(os.getpid())
    if item == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if item.startswith("kill "):
        mark = Path(item.removeprefix("kill "))
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return item * 2
