"""Running a vendor's programs: argument lists, a process group of their own, the full log kept."""

import os
import re
import signal
import subprocess
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
    """,
    re.VERBOSE,
)


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


def telling_line(log: str) -> str:
    """The last line of a log that says something: no traceback frames, no repeated commands."""
    # What a dying Python says of its own destructors comes last and explains nothing.
    log = log.partition("Exception ignored in")[0] or log
    lines = [line for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if not _NOISE.match(line)]
    return (telling or lines or ["it printed nothing"])[-1].strip()


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
    child = subprocess.Popen(
        [str(part) for part in argv],
        cwd=cwd,
        env=dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        with child:
            try:
                yield child
            except BaseException:
                end_group(child)
                raise
    finally:
        end_group(child)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a child of `own_group` and everything it started."""
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(child.pid, signal.SIGKILL)


def run_logged(
    argv: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a program to its end, appending command line and output to `log`.

    `on_line` sees every line of output as it comes. Raises ChildFailedError.
    """
    words = [str(part) for part in argv]
    printed: deque[str] = deque(maxlen=400)
    with log.open("a") as file, own_group(words, env=env, cwd=cwd) as child:
        started = f"$ {' '.join(words)}\n"
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
    if child.returncode != 0:
        raise ChildFailedError(words, child.returncode, telling_line("".join(printed)))
