"""One thread that answers the chats of many users together, and the queue before it.

Requests wait in a bounded queue; those that wait at the same time are answered in one batch, language model and
detokenizer alike. The model can be exchanged between two batches.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace

from opentelemetry import trace

from visavis.chat.conversation import USER, Message, Picture
from visavis.chat.talker import Answer, Request, Talker, Wish

log = logging.getLogger("visavis.serving")
tracer = trace.get_tracer("visavis")
_IDLE_SECONDS = 0.2


class QueueFullError(Exception):
    """No room in the queue; `seconds` is when it is worth asking again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the queue is full; ask again in {seconds:.0f} s")
        self.seconds = seconds


class DeadlineError(Exception):
    """The answer was not ready in time."""


class ClosedError(Exception):
    """The engine takes no more requests."""


@dataclass
class Job:
    """A request in the queue.

    Attributes:
        request: The chat.
        deadline: When the answer is of no use any more, as `time.monotonic`.
        answer: What comes of it.
        cancelled: Set by whoever waited for it and left.
        version: Of the model that answered.
    """

    request: Request
    deadline: float
    answer: Future[Answer] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)
    version: str = ""

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not self.cancelled.is_set() and time.monotonic() < self.deadline


class Engine:
    """Answers requests with one model, batch by batch.

    Args:
        talker: The model.
        version: Its name for users.
        most_waiting: Requests that may wait.
        most_together: Pictures painted in one batch at most.
        gather_seconds: How long the first of a batch waits for others.
        seen: Is called after each batch with its number of requests and its seconds.
    """

    def __init__(
        self,
        talker: Talker,
        version: str = "",
        *,
        most_waiting: int = 64,
        most_together: int = 16,
        gather_seconds: float = 0.005,
        seen: Callable[[int, float], None] | None = None,
    ) -> None:
        self.talker, self.version = talker, version
        self.most_together, self.gather_seconds = most_together, gather_seconds
        self.ready = threading.Event()
        self._seen = seen
        self._waiting: queue.Queue[Job] = queue.Queue(most_waiting)
        self._next: tuple[Talker, str] | None = None
        self._closing = threading.Event()
        self._seconds_each = 1.0
        self._thread = threading.Thread(target=self._work, name="visavis-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._waiting.qsize()

    def submit(self, request: Request, seconds: float = 60.0) -> Job:
        """Puts a request into the queue.

        Args:
            request: The chat.
            seconds: After which the answer is of no use.

        Raises:
            QueueFullError: If too many wait.
            ClosedError: If the engine is closing.
        """
        if self._closing.is_set():
            raise ClosedError
        job = Job(request, time.monotonic() + seconds)
        job.request = replace(request, hear=_while(job, request.hear), watch=_watch(job, request.watch))
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            raise QueueFullError(max(1.0, self.waiting * self._seconds_each)) from None
        return job

    def exchange(self, talker: Talker, version: str) -> None:
        """Answers with another model from the next batch on; no request is lost."""
        warm_up(talker)
        self._next = (talker, version)

    def close(self, seconds: float = 30.0) -> None:
        """Answers what waits, for so long at most, and takes no more."""
        self._closing.set()
        self._thread.join(seconds)
        while True:
            try:
                _settle(self._waiting.get_nowait(), ClosedError())
            except queue.Empty:
                return

    def _work(self) -> None:
        try:
            warm_up(self.talker)
        except Exception:
            log.exception("the model does not answer")
            return
        self.ready.set()
        while not (self._closing.is_set() and self._waiting.empty()):
            if batch := self._gather():
                self._answer(batch)
            if self._next is not None:
                (self.talker, self.version), self._next = self._next, None

    def _gather(self) -> list[Job]:
        """Waits for a request, then shortly for more."""
        batch: list[Job] = []
        pictures, until = 0, 0.0
        while pictures < self.most_together:
            patience = max(0.0, until - time.monotonic()) if batch else _IDLE_SECONDS
            try:
                job = self._waiting.get(timeout=patience) if patience else self._waiting.get_nowait()
            except queue.Empty:
                break
            if not job.wanted:
                _settle(job, DeadlineError())
                continue
            if not batch:
                until = time.monotonic() + self.gather_seconds
            batch.append(job)
            pictures += job.request.wish.candidates
        return batch

    def _answer(self, batch: Sequence[Job]) -> None:
        began = time.monotonic()
        with tracer.start_as_current_span("answer", attributes={"visavis.requests": len(batch)}):
            try:
                answers = self.talker.answer([job.request for job in batch])
            except Exception as error:
                if len(batch) > 1:  # who is to blame is answered alone
                    for job in batch:
                        self._answer([job])
                else:
                    _settle(batch[0], error)
                return
        for job, answer in zip(batch, answers, strict=True):
            job.version = self.version
            _settle(job, answer if job.wanted else DeadlineError())
        seconds = time.monotonic() - began
        self._seconds_each = 0.8 * self._seconds_each + 0.2 * seconds / len(batch)
        if self._seen is not None:
            self._seen(len(batch), seconds)


def warm_up(talker: Talker) -> None:
    """Answers once and paints once, so that the first user does not wait for caches to fill."""
    talker.answer([Request([Message(USER, ("hello",))], Wish(candidates=1), owner="\0warm-up")])


def _settle(job: Job, outcome: Answer | Exception) -> None:
    """Tells whoever waits; nobody may, and then the future is cancelled."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, Exception):
            job.answer.set_exception(outcome)
        else:
            job.answer.set_result(outcome)


def _while(job: Job, hear: Callable[[str], bool] | None) -> Callable[[str], bool]:
    return lambda words: job.wanted and (hear is None or hear(words))


def _watch(job: Job, watch: Callable[[Picture], bool] | None) -> Callable[[Picture], bool] | None:
    return None if watch is None else lambda picture: job.wanted and watch(picture)
