"""A run in a process of its own, and its end: nothing that it started outlives it.

The run lives as long as the server holds the other end of its standard input (`follow_parent`), so
a server that dies takes its runs with it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from sdconv.page.limits import Limits
from sdconv.page.run_folder import LOG, RunFolder
from sdconv.page.workspace import Workspace

LOOK = 2.0
"""Seconds between two looks at what a run has started."""

GRACE = 10.0
"""Seconds that a run has to clean up after it was asked to end."""

CODE = Path(__file__).parents[2]
"""Where this very program lies, for the run to import."""


class Child:
    """One run's process, from its start on."""

    def __init__(self, workspace: Workspace, run: RunFolder, limits: Limits) -> None:
        path = os.pathsep.join([str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])])
        with (run.path / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sdconv.page.worker", str(workspace.root), str(run.path),
                 json.dumps(limits.to_json())],
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def identity(self) -> tuple[int, float]:
        """The process's id and when it was started; no two processes share both."""
        with suppress(psutil.NoSuchProcess):
            return self._process.pid, psutil.Process(self._process.pid).create_time()
        return self._process.pid, 0.0

    def wait(self) -> int:
        """Wait for its end; returns its exit code.

        One that was killed could not end what it had started: that is done here.
        """
        left: set[psutil.Process] = set()
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(LOOK)
                break
            with suppress(psutil.NoSuchProcess):
                left = _children(psutil.Process(self._process.pid))
        assert self._process.stdin is not None
        self._process.stdin.close()
        _kill(left)
        return code

    def stop(self) -> None:
        """End it and everything that it started, as Ctrl-C does; by force if that is not enough."""
        with suppress(psutil.NoSuchProcess):
            end_tree(psutil.Process(self._process.pid))


def end_tree(process: psutil.Process) -> None:
    """Interrupt a process and wait; then kill it, and whatever is left of what it started."""
    started = {process, *_children(process)}
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)
    _wait({process})
    _kill(started | _children(process))


def _kill(processes: set[psutil.Process]) -> None:
    """Kill those that still run; psutil knows another process that got the id of one by now."""
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    _wait(processes)


def _wait(processes: set[psutil.Process]) -> None:
    """Wait until these have ended. One that nobody asked for its exit code, a zombie, has."""
    deadline = time.monotonic() + GRACE
    while any(map(_runs, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def end_leftover(identity: tuple[int, float] | None) -> None:
    """End the process of a run whose server is gone, if it is still there."""
    with suppress(psutil.NoSuchProcess):
        if identity is not None and psutil.Process(identity[0]).create_time() == identity[1]:
            end_tree(psutil.Process(identity[0]))


def _children(process: psutil.Process) -> set[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return set(process.children(recursive=True))
    return set()


def follow_parent() -> None:
    """In a run: end like after Ctrl-C when the server closes our standard input, or dies."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` had it ignored
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
