"""A function that misbehaves on demand; runs in guarded workers, so it imports little."""

import os
import signal
import time


def hostile(item: str) -> str:
    """Works, hangs, crashes or fails, as the item says; runs in a guarded worker."""
    if item == "hang":
        time.sleep(60)
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "fail":
        raise ValueError("no")
    return item * 2
