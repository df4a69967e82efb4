"""Long work in a thread, watched from outside: what is done now, and what was worth noting."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import Generic, TypeVar

from converter.progress import Event
from sdconv.page.job import StepProgress

T = TypeVar("T")

TICK = 0.3
"""Seconds between two views: fast enough to look alive, slow enough for a far-away browser."""


@dataclass(frozen=True)
class View:
    """The state of some work. `step` is empty while it waits for its turn."""

    step: str = ""
    stage: str = ""
    done: float = 0.0
    log: tuple[str, ...] = ()
    seconds: float = 0.0

    def after(self, step: str, event: Event) -> "View":
        """The view once this event has happened: notes and finished stages enter the log."""
        line = event.note or (f"{event.stage}: done" if event.done >= 1 else "")
        log = (*self.log, line) if line else self.log
        return replace(self, step=step, stage=event.stage, done=event.done, log=log)


class Running(Generic[T]):
    """Work that was handed to a `Worker`."""

    def __init__(
        self, pool: ThreadPoolExecutor, work: Callable[[StepProgress], T], closing: Flag
    ) -> None:
        self._happened: SimpleQueue[tuple[str, Event]] = SimpleQueue()
        self._stopping = Flag()
        self._closing = closing
        self._future: Future[T] = pool.submit(work, self._report)

    def _report(self, step: str, event: Event) -> None:
        if self._stopping.is_set() or self._closing.is_set():
            # What Ctrl-C is to the command line: everything below cleans up after it.
            raise KeyboardInterrupt
        self._happened.put((step, event))

    def views(self) -> Iterator[View]:
        """A view every TICK until the work has ended, and one of its end."""
        started = time.monotonic()
        view = View()
        ended = False
        while not ended:
            ended = self._future.done()  # asked before draining, so that no event is missed
            view = self._drained(view, 0.0 if ended else TICK)
            yield replace(view, seconds=time.monotonic() - started)

    def _drained(self, view: View, wait: float) -> View:
        deadline = time.monotonic() + wait
        while True:
            try:
                step, event = self._happened.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return view
            view = view.after(step, event)

    def result(self) -> T:
        """What the work returned; raises what it raised, KeyboardInterrupt when it was stopped."""
        return self._future.result()

    def stop(self) -> None:
        """Drop the work if it waits; otherwise end it at the next event that it reports."""
        self._future.cancel()
        self._stopping.set()


class Worker:
    """Does one piece of work at a time: each takes all cores and gigabytes of memory."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="job")
        self._closing = Flag()

    def start(self, work: Callable[[StepProgress], T]) -> Running[T]:
        """Queue `work`, which is given the progress to report to."""
        return Running(self._pool, work, self._closing)

    def close(self) -> None:
        """Stop everything and wait until it has stopped."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)
