"""What this machine can give a job: memory, processor cores, room on disks.

A container's limits count: the control groups (versions 1 and 2) that this process is in are
asked besides the system. See the kernel's `Documentation/admin-guide/cgroup-v2.rst`.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from converter.errors import InputError
from converter.files import existing_parent

UNLIMITED = 1 << 60
"""Version 1 writes a number near 2^63 where there is no limit."""


@dataclass(frozen=True)
class Disk:
    """The disk that a folder lies on, or will. `free` is in bytes; one `device` is one disk."""

    folder: Path
    device: int
    free: int

    @classmethod
    def of(cls, folder: Path) -> "Disk":
        """Ask the system."""
        place = existing_parent(folder)
        return cls(folder, place.stat().st_dev, shutil.disk_usage(place).free)


@dataclass(frozen=True)
class Machine:
    """Bytes of memory that a program started now can have, and cores that it may use."""

    memory: int
    cores: int

    @classmethod
    def here(cls, root: Path = Path("/")) -> "Machine":
        """Ask the system and the control groups; `root` holds `proc` and `sys`."""
        groups = list(_groups(root))
        rooms = [room for group in groups if (room := _room(group)) is not None]
        shares = [share for group in groups if (share := _share(group)) is not None]
        memory = min([psutil.virtual_memory().available, *rooms])
        cores = min([_cores(), *shares])
        return cls(memory, max(1, cores))


MARGIN = 400 << 20
"""Bytes that must stay free: below, the system kills whatever it takes for the culprit."""


def memory_below(process: int) -> int:
    """Bytes that the programs that a process started hold, without pages of files."""
    try:
        children = psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return 0
    return sum(map(_held, children))


def outgrown(process: int, predicted: int) -> str | None:
    """Why a program must be ended before memory is: it holds more than was `predicted` (bytes)."""
    free = Machine.here().memory
    if free >= MARGIN:
        return None
    held = memory_below(process) + _held(process)
    if held <= predicted:
        return None  # others took it
    return (
        f"it holds {held / 1e9:.1f} GB where {predicted / 1e9:.1f} GB were predicted, and "
        f"{free / 1e9:.1f} GB are left"
    )


def _held(process: psutil.Process | int) -> int:
    try:
        asked = psutil.Process(process) if isinstance(process, int) else process
        memory = asked.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return int(memory.rss - memory.shared)


def require_memory(needed: int, what: str) -> None:
    """Raise InputError when less than `needed` bytes of memory can be had here now."""
    free = Machine.here().memory
    if free < needed:
        raise InputError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB can be "
            "had now: end other programs, or do it on a larger machine"
        )


def _cores() -> int:
    """Cores that the system lets this process use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # no system but Linux can tell


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, each with those above it."""
    listed = root / "proc" / "self" / "cgroup"
    base = root / "sys" / "fs" / "cgroup"
    for line in listed.read_text().splitlines() if listed.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = base / controllers
        folder = top / path.lstrip("/")
        yield from (f for f in (folder, *folder.parents) if f.is_relative_to(top) and f.is_dir())


def _room(group: Path) -> int | None:
    """Bytes until a group's limit; None without one. Cached file pages are given back at need."""
    for limit, used, inactive in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most = _words(group / limit)
        if not most or most[0] == "max" or int(most[0]) >= UNLIMITED:
            continue
        stat = _words(group / "memory.stat")
        cached = dict(zip(stat[::2], stat[1::2], strict=False))
        used_now = int((_words(group / used) or ["0"])[0])
        return max(0, int(most[0]) - used_now + int(cached.get(inactive, 0)))
    return None


def _share(group: Path) -> int | None:
    """Whole cores that a group may keep busy (version 2 only); None without a limit."""
    words = _words(group / "cpu.max")
    if len(words) != 2 or words[0] == "max":
        return None
    return int(words[0]) // int(words[1])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
