"""Running a vendor's programs: argument lists, a process group of their own, the full log kept.

Programs may run in several threads; `stopping_children` ends those of all.
"""

import os
import re
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

ONLY_OURS = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV")
"""Variables of this process that would make another Python load the wrong files."""

_NOISE = re.compile(
    r"""
      \s                      # code and frames of a Python traceback
    | Traceback
    | \#\d+\ 0x               # frames of a crashed compiler
    | Stack\ dump | \d+\.\s+Program\ arguments | PLEASE\ submit | Aborted | Segmentation
    | RuntimeError:\ \[!Error\]   # the vendor's wrapper repeating its command line
    | \[(Failed|Running|Success)\]
    | \[[ \#=>]*\]           # a progress bar
    """,
    re.VERBOSE,
)
_TELLS = re.compile(r"assert info|\berror:|unreachable executed", re.IGNORECASE)
"""In a line that says what went wrong; what follows it may be of the operation at hand."""


_watchers: list[Callable[[str], None]] = []


@contextmanager
def watched(on_line: Callable[[str], None]) -> Iterator[None]:
    """Show `on_line` every line that programs of `run_logged` print within the block, as it comes.

    For whoever looks on: the log of each program is kept as always.
    """
    _watchers.append(on_line)
    try:
        yield
    finally:
        _watchers.remove(on_line)


def _show(line: str) -> None:
    for watch in _watchers:
        watch(line)


class ChildFailedError(RuntimeError):
    """A child process ended badly. `line` is the most telling line it printed."""

    def __init__(self, argv: Sequence[str], code: int, line: str) -> None:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        super().__init__(f"{Path(argv[0]).name} ended with {how}: {line}")
        self.argv = tuple(argv)
        self.code = code
        self.line = line


class ChildStoppedError(RuntimeError):
    """A child process was ended because of a problem, which the message is."""


_children: "set[subprocess.Popen[bytes]]" = set()
_stopping = threading.Event()


def check_not_stopped() -> None:
    """Raise KeyboardInterrupt, in any thread, while the programs of all are being ended."""
    if _stopping.is_set():
        raise KeyboardInterrupt


@contextmanager
def stopping_children() -> Iterator[None]:
    """End every running program; while the block runs, no thread begins another."""
    _stopping.set()
    try:
        for child in list(_children):
            end_group(child)
        yield
    finally:
        _stopping.clear()


def telling_line(log: str) -> str:
    """The last line of a log that names an error, else the last that says something.

    That is no frame of a traceback, no repeated command.
    """
    # What a dying Python says of its own destructors comes last and explains nothing.
    log = log.partition("Exception ignored in")[0] or log
    lines = [line for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if not _NOISE.match(line)]
    errors = [line for line in telling if _TELLS.search(line)]
    return (errors or telling or lines or ["it printed nothing"])[-1].strip()


@contextmanager
def own_group(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.STDOUT,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in its own process group; whatever happens, nothing of it outlives the block.

    Its own group means that Ctrl-C reaches this process alone, which then ends the group: the
    vendor's scripts start further programs that would otherwise go on computing.
    """
    check_not_stopped()
    child = subprocess.Popen(
        [str(part) for part in argv],
        cwd=cwd,
        env=dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    _children.add(child)
    try:
        with child:
            try:
                yield child
            except BaseException:
                end_group(child)
                raise
    finally:
        end_group(child)
        _children.discard(child)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a child of `own_group` and everything it started."""
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(child.pid, signal.SIGKILL)


WATCH_SECONDS = 0.25
"""Between two looks at a program."""


@contextmanager
def _ended_for(
    child: "subprocess.Popen[bytes]", problem: Callable[[int], str | None] | None
) -> Iterator[list[str]]:
    """End a child as soon as `problem` (of its process number) says why; the list holds it then."""
    reasons: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while problem is not None and not reasons and not done.wait(WATCH_SECONDS):
            if (reason := problem(child.pid)) is not None:
                reasons.append(reason)
                end_group(child)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield reasons
    finally:
        done.set()
        thread.join()


def run_logged(
    argv: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    problem: Callable[[int], str | None] | None = None,
) -> None:
    """Run a program to its end, appending command line and output to `log`.

    `on_line` sees every line of output as it comes. `problem` is asked now and then, with the
    number of the process, whether it must be ended. Raises ChildFailedError, and ChildStoppedError
    for a problem.
    """
    words = [str(part) for part in argv]
    printed: deque[str] = deque(maxlen=400)
    with (
        log.open("a", buffering=1) as file,  # a line at a time, for whoever reads along
        own_group(words, env=env, cwd=cwd) as child,
        _ended_for(child, problem) as reasons,
    ):
        started = f"$ {shlex.join(words)}\n"
        file.write(started)
        _show(started)
        assert child.stdout is not None, "own_group makes it a pipe"
        for raw in child.stdout:
            line = raw.decode(errors="replace")
            file.write(line)
            printed.append(line)
            _show(line)
            if on_line is not None:
                on_line(line)
        child.wait()
    if reasons:
        raise ChildStoppedError(reasons[0])
    check_not_stopped()
    if child.returncode != 0:
        raise ChildFailedError(words, child.returncode, telling_line("".join(printed)))
