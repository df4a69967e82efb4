"""Several compilations at once on one machine, as far as its memory goes.

Each job notes what memory it will need in a file that it holds locked until it is done; a file that
nobody holds is what a killed process left. A job begins when what is free now, less what the others
will still take, is enough for it. Jobs of other processes count like those of this one.
"""

import fcntl
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from converter.folders import cache_folder
from targets.machine import Machine, memory_below, require_memory
from targets.processes import check_not_stopped

POLL_SECONDS = 1.0


@contextmanager
def memory_for(needed: int, what: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Wait until `needed` bytes are to be had beside the other jobs, and keep them while it runs.

    `on_wait` hears once why it waits. Raises InputError where it would wait for no job.
    """
    folder = cache_folder() / "running"
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        with FileLock(folder / "lock"):
            others = _running(folder)
            free = Machine.here().memory - _still_taken(others)
            if needed <= free or not others:
                require_memory(needed, what)
                handle, note = _noted(folder, needed)
                break
        if not told:
            on_wait(
                f"waits for memory: {needed / 1e9:.1f} GB are needed {what}, and other "
                f"compilations leave {max(free, 0) / 1e9:.1f} GB"
            )
            told = True
        check_not_stopped()
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
        os.close(handle)


def _noted(folder: Path, needed: int) -> tuple[int, Path]:
    """A locked file that says what this process needs."""
    handle, name = tempfile.mkstemp(suffix=".job", dir=folder)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.write(handle, json.dumps([os.getpid(), needed]).encode())
    return handle, Path(name)


def _running(folder: Path) -> Counter[int]:
    """Bytes that the jobs of each process have asked for; what nobody holds is removed."""
    asked: Counter[int] = Counter()
    for file in folder.glob("*.job"):
        with suppress(FileNotFoundError), file.open("rb") as note:
            try:
                fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                process, needed = json.load(note)
                asked[process] += needed
            else:
                file.unlink()
    return asked


def _still_taken(asked: Counter[int]) -> int:
    """What these processes' jobs will take besides what they hold now, in bytes."""
    return sum(max(0, needed - memory_below(process)) for process, needed in asked.items())
