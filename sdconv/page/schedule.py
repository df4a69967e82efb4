"""The queue: so many runs go on at once, the others wait in the order in which they came.

Where a run stands is written into its folder at every change, so a server that starts again knows
which were waiting (they wait again) and which were cut off (they can be resumed).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

from sdconv.page.child import Child, end_leftover
from sdconv.page.run_folder import (
    ENDED,
    INTERRUPTED,
    RUNNING,
    STOPPED,
    WAITING,
    Outcome,
    RunFolder,
    State,
)

KILLED = (
    "it was killed, most likely for want of memory: choose fewer or smaller sizes, or try later"
)
SILENT = "it ended without a word (code {code}); its log may tell why"

Start = Callable[[RunFolder], Child]


class Schedule:
    """Runs that wait and run. `start` gives one a process; at most `slots` have one at a time."""

    def __init__(self, start: Start, slots: int) -> None:
        self._start = start
        self._slots = slots
        self._waiting: deque[RunFolder] = deque()
        self._running: dict[Path, Child] = {}
        self._stopped: set[Path] = set()
        self._closing = False
        self._changed = threading.Condition()

    def add(self, run: RunFolder) -> None:
        """Put a run at the end of the queue."""
        run.save_state(State(WAITING, time.time()))
        with self._changed:
            self._waiting.append(run)
            self._fill()

    def recover(self, runs: Iterable[RunFolder]) -> None:
        """Take over what an earlier server left: the oldest first."""
        for run in runs:
            state = run.state()
            if state.state == WAITING:
                with self._changed:
                    self._waiting.append(run)
                    self._fill()
            elif state.state == RUNNING:
                end_leftover(state.process)
                kind = INTERRUPTED if run.outcome() is None else ENDED
                run.save_state(replace(state, state=kind, ended=time.time()))

    def _fill(self) -> None:
        """Start what may run now. The lock is held."""
        while self._waiting and len(self._running) < self._slots and not self._closing:
            run = self._waiting.popleft()
            state = replace(run.state(), started=time.time())
            try:
                child = self._start(run)
            except OSError as e:  # no memory for a process, too many open files
                logging.getLogger(__name__).exception("a run could not be started")
                run.save_outcome(Outcome("fault", f"it could not be started ({e})"))
                run.save_state(replace(state, state=ENDED, ended=time.time()))
                continue
            run.save_state(replace(state, state=RUNNING, process=child.identity))
            self._running[run.path] = child
            threading.Thread(target=self._watch, args=(run, child), daemon=True).start()

    def _watch(self, run: RunFolder, child: Child) -> None:
        code = child.wait()
        with self._changed:
            kind = ENDED
            if run.outcome() is None:
                if run.path in self._stopped:
                    kind = STOPPED
                elif self._closing:
                    kind = INTERRUPTED
                else:
                    said = KILLED if code == -SIGKILL else SILENT.format(code=code)
                    run.save_outcome(Outcome("fault", said))
            run.save_state(replace(run.state(), state=kind, ended=time.time(), process=None))
            del self._running[run.path]
            self._stopped.discard(run.path)
            self._fill()
            self._changed.notify_all()

    def position(self, run: RunFolder) -> int | None:
        """How many it has to wait for, itself included; None if it does not wait."""
        with self._changed:
            waiting = [other.path for other in self._waiting]
        return waiting.index(run.path) + 1 if run.path in waiting else None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def stop(self, run: RunFolder) -> None:
        """Take a run out of the queue, or end it; returns when nothing of it runs any more."""
        with self._changed:
            if run in self._waiting:
                self._waiting.remove(run)
                run.save_state(replace(run.state(), state=STOPPED, ended=time.time()))
                self._changed.notify_all()
                return
            child = self._running.get(run.path)
            if child is not None:
                self._stopped.add(run.path)
        if child is not None:
            child.stop()
            self.wait(run)

    def wait(self, run: RunFolder, seconds: float | None = None) -> bool:
        """Wait until a run that was added neither waits nor runs; False when it still does."""

        def is_over() -> bool:
            return run.path not in self._running and run not in self._waiting

        with self._changed:
            return self._changed.wait_for(is_over, seconds)

    def close(self) -> None:
        """Interrupt what runs and wait for its end; what waits is for the next server."""
        with self._changed:
            self._closing = True
            children = [*self._running.values()]
        ending = [threading.Thread(target=child.stop) for child in children]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._running)
