"""A function that misbehaves on demand; runs in guarded workers, so it imports little."""

import os
import signal
import time
from contextlib import suppress
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


def read(item: str) -> tuple[str, int]:
    """Reads a clip; returns `clip` or the reason of its rejection, and the process.

    `kill once PATH` kills the process the first time.
    """
    from visavis.data.video.decode import DecodeJob, Rejected, read_clip

    path = item.removeprefix("kill once ")
    if path != item:
        mark = Path(f"{path}.mark")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    result = read_clip(DecodeJob(path, 0.2, 8192 * 4320, 6, 27.0))
    return result.reason if isinstance(result, Rejected) else "clip", os.getpid()


def weigh_rounds(paths: list[str]) -> list[int]:
    """Reads clips three times over; returns the memory in MiB that the process holds after each round."""
    held = []
    for _ in range(3):
        for path in paths:
            # Some ask for more than there can be.
            with suppress(MemoryError):
                read(path)
        pages = Path("/proc/self/statm")
        size = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.is_file() else 0
        held.append(size >> 20)
    return held
