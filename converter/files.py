"""Writing files so that a final name never holds half a file, and naming what is in them."""

import glob
import hashlib
import json
import mmap
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import blake3
import psutil

from converter.errors import InputError
from converter.folders import cache_folder

HASHES: dict[str, Callable[[], Any]] = {
    "sha256": hashlib.sha256,
    "blake3": partial(blake3.blake3, max_threads=blake3.blake3.AUTO),
}

HASHED_AT_ONCE = 1 << 22
"""Bytes: enough of them for BLAKE3 to share among the processors."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it there on success, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for orphan in orphans(path.parent, f".{path.name}."):
        orphan.unlink(missing_ok=True)
    prefix = f".{path.name}.{os.getpid()}."
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".partial", dir=path.parent)
    os.close(handle)
    work = Path(name)
    try:
        yield work
        umask = os.umask(0)
        os.umask(umask)
        work.chmod(0o666 & ~umask)
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)


def take(path: Path, work: Path) -> bool:
    """Move `path` onto `work`, to be changed in place, if nobody else could notice the change.

    It stays where it is if it has a second name (an artifact shares it), or if anybody has it
    open or mapped: whoever reads it goes on with the bytes that he began with.
    """
    if path.is_symlink() or not path.is_file():
        return False
    path.replace(work)  # from here on nobody new finds it
    if _nobody_else_has(work):
        return True
    work.replace(path)
    return False


def _nobody_else_has(path: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    with path.open("r+b") as file:
        if os.fstat(file.fileno()).st_nlink != 1:
            return False
        try:
            # The kernel grants a write lease only on a file that is open and mapped nowhere else.
            fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # SIGIO, the default, would kill
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:  # in use, or a file system without leases
            return False
    return True


def write_at(handle: int, data: memoryview, offset: int) -> None:
    """Write all of `data` (bytes) at `offset` of an open file; several threads may at once."""
    while data:
        count = os.pwrite(handle, data, offset)
        data, offset = data[count:], offset + count


def let_go(mapped: mmap.mmap, start: int, end: int) -> None:
    """Give the pages of a part of a mapped file back to the system; they may be read again."""
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, first, end - first)


def orphans(folder: Path, prefix: str) -> list[Path]:
    """Temporary files and folders that a killed process left: ``<prefix><its id>.*.partial``."""
    found = []
    for path in folder.glob(f"{glob.escape(prefix)}*.partial"):
        process = path.name.removeprefix(prefix).partition(".")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            found.append(path)
    return found


def write_json(path: Path, data: object) -> None:
    """Write `data` as indented JSON, atomically."""
    with replacing(path) as work:
        work.write_text(json.dumps(data, indent=1) + "\n")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object; raises InputError naming the file and `what` it should be."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as e:
        raise InputError(f"{path}: not found; it should be {what}") from e
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"{path}: not readable as {what} ({e})") from e
    if not isinstance(data, dict):
        raise InputError(f"{path}: not {what}: a JSON object was expected")
    return data


def link_or_copy(source: Path, path: Path) -> None:
    """Give `source` a second name (hard link); copy where the file system cannot."""
    with replacing(path) as work:
        work.unlink()
        try:
            work.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, work)


def existing_parent(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists: what will lie on the same disk."""
    return next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise InputError when the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(existing_parent(folder)).free
    if free < needed:
        raise InputError(
            f"{folder}: {what} needs {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB "
            "free: make room, or choose a folder on another disk"
        )


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, remembered while its size and modification time stay the same."""
    return _remembered("sha256", path)


def blake3_of(path: Path) -> str:
    """BLAKE3 of a file, remembered like `sha256_of`.

    For sources of gigabytes: ten times faster than SHA-256 on a processor without SHA
    instructions, and published for every file by Civitai, so a user can compare it.
    """
    return _remembered("blake3", path)


def known_blake3(path: Path) -> str | None:
    """What `blake3_of` would return, if that is remembered and the file need not be read."""
    memory = _memory("blake3", path)
    return memory.read_text() if memory.is_file() else None


def _memory(kind: str, path: Path) -> Path:
    """Where the digest of a file as it is now is remembered."""
    stat = path.stat()
    fingerprint = f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
    name = hashlib.sha256(fingerprint.encode()).hexdigest()[:32]
    return cache_folder() / "hashes" / f"{name}.{kind}"


def _remembered(kind: str, path: Path) -> str:
    memory = _memory(kind, path)
    if memory.is_file():
        return memory.read_text()
    digest, block = HASHES[kind](), memoryview(bytearray(HASHED_AT_ONCE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    found: str = digest.hexdigest()
    with replacing(memory) as work:
        work.write_text(found)
    return found
