"""What is kept and for how long: removal by age, and the room that all visitors share.

Only the page's own folders are looked at. A job that waits or runs, what it was made from, and
what somebody used lately stay.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converter.errors import InputError
from converter.files import read_json
from sdconv.page.deliverables import bytes_below
from sdconv.page.jobs import ID, REMOVED, Jobs, age_of
from sdconv.page.limits import GB, Limits

DAY = 24 * 3600.0
UPLOADS_KEPT = DAY
"""Seconds that an upload is kept; a job keeps its own."""


@dataclass(frozen=True)
class Retention:
    """Keeps the page's folders within the limits."""

    jobs: Jobs
    limits: Limits

    def used(self) -> int:
        """Bytes of all jobs, uploads and downloads; a file with several names counts once."""
        seen: set[tuple[int, int]] = set()
        return sum(bytes_below(folder, seen) for folder in self.jobs.workspace.own)

    def require_room(self, needed: int = 0) -> None:
        """Raise InputError when so many bytes more do not fit, after what is old was removed."""
        if self.used() + needed <= self.limits.quota:
            return
        self.sweep()
        used = self.used()
        if used + needed > self.limits.quota:
            raise InputError(
                f"the room of this page is used up ({used / GB:.1f} of "
                f"{self.limits.quota / GB:.1f} GB): remove jobs that you do not need, or ask "
                "whoever runs it for more"
            )

    def sweep(self) -> None:
        """Remove what nobody used for as long as things are kept."""
        oldest = self.limits.keep_days * DAY
        for job in self.jobs.every():
            if not job.unfinished and age_of(job) > oldest:
                self.jobs.remove(job)
        for folder in self.jobs.workspace.jobs.iterdir():
            left_over = folder.name.startswith(REMOVED)
            damaged = ID.fullmatch(folder.name) and self.jobs.get(folder.name) is None
            if left_over or (damaged and _age(folder) > oldest):
                _remove(folder)
        for upload in self.jobs.workspace.uploads.iterdir():
            if _age(upload) > UPLOADS_KEPT:
                _remove(upload)
        for unit, age in self._downloads():
            if age > oldest:
                _remove(unit)

    def _downloads(self) -> Iterator[tuple[Path, float]]:
        """Every file or repository that was fetched, and seconds since it was last used."""
        root = self.jobs.workspace.downloads
        used: dict[Path, float] = {}
        for record in (root / "fetched").glob("*.json"):
            try:
                path = Path(str(read_json(record, "the record of a download")["path"]))
                kind, name, *_ = path.relative_to(root).parts
            except (InputError, KeyError, ValueError):
                continue
            place = root / kind / name
            used[place] = max(used.get(place, 0), record.stat().st_mtime)
        for kind in ("downloads", "hub"):
            for unit in (root / kind).glob("*"):
                yield unit, min(_age(unit), time.time() - used.get(unit, 0))


def _age(path: Path) -> float:
    """Seconds since anything directly in a folder, or a file, was written."""
    entries = [path, *(path.iterdir() if path.is_dir() and not path.is_symlink() else ())]
    return time.time() - max(float(entry.lstat().st_mtime) for entry in entries)


def _remove(path: Path) -> None:
    """Remove a file, a link itself, or a folder whose links are not followed."""
    logging.getLogger(__name__).info("removed %s", path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
