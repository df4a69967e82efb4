"""The page's root folder: which files below it a visitor may name, and a fresh folder per job."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from converter.errors import InputError
from converter.files import link_or_copy

SUFFIX = ".safetensors"

MOST_OFFERED = 500
"""Files listed for choosing; any other below the root can be typed."""


def clean_name(name: str) -> str:
    """A file name of letters, digits, dot, dash and underscore that ends in ``.safetensors``.

    The ending is forced because job folders are served to browsers: whatever a visitor called the
    file, it is never shown as a page.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name).name.removesuffix(SUFFIX))
    return (stem.strip("._-")[:100] or "file") + SUFFIX


@dataclass(frozen=True)
class Workspace:
    """A folder, symbolic links resolved, that the page neither reads nor writes outside of."""

    root: Path

    @classmethod
    def at(cls, folder: Path) -> "Workspace":
        """The workspace in `folder`, made if it is missing; raises InputError if it cannot be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            workspace = cls(folder.resolve())
            workspace.jobs.mkdir(exist_ok=True)
            workspace.uploads.mkdir(exist_ok=True)
        except OSError as e:
            raise InputError(
                f"{folder}: cannot be used as the root folder ({e.strerror}): name a folder that "
                "you may write to"
            ) from e
        return workspace

    @property
    def jobs(self) -> Path:
        """Where every job has its folder."""
        return self.root / "jobs"

    @property
    def uploads(self) -> Path:
        """Where the web server puts what is uploaded; it removes it again after a day."""
        return self.root / "uploads"

    def find(self, text: str) -> Path:
        """The file that a visitor uploaded or named; raises InputError unless it is below the root.

        What lies outside is answered like what does not exist, so nothing can be probed.
        """
        try:
            path = (self.root / text).resolve()
            found = path.is_relative_to(self.root) and path.is_file()
        except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a null byte
            found = False
        if not found:
            raise InputError(
                f"{text!r}: no such file below {self.root}: choose one of the list, or upload it"
            )
        return path

    def offered(self) -> list[str]:
        """The .safetensors files below the root, relative to it, in order."""
        return sorted(islice(self._safetensors(), MOST_OFFERED))

    def _safetensors(self) -> Iterator[str]:
        own = {self.jobs, self.uploads}
        for folder, subfolders, names in os.walk(self.root):
            here = Path(folder)
            subfolders[:] = [s for s in subfolders if not s.startswith(".") and here / s not in own]
            for path in (here / name for name in names if name.endswith(SUFFIX)):
                if path.resolve().is_relative_to(self.root):
                    yield str(path.relative_to(self.root))

    def new_job(self) -> Path:
        """Make a folder that no other job has and whose name cannot be guessed."""
        started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        folder = self.jobs / f"{started}-{secrets.token_hex(8)}"
        folder.mkdir()
        return folder

    def discard(self, job: Path) -> None:
        """Remove the folder of a job that came to nothing."""
        if job.parent != self.jobs:
            raise ValueError(f"{job} is no job of {self.root}")
        shutil.rmtree(job)

    def keep(self, path: Path, job: Path) -> Path:
        """Give an uploaded file a place in its job; other files stay where they are.

        Uploads are removed after a day and a job's commands must still work then. A hard link
        costs nothing.
        """
        if not path.is_relative_to(self.uploads):
            return path
        name = clean_name(path.name)
        place = next(p for p in _places(job / "inputs", name) if not p.exists())
        link_or_copy(path, place)
        return place


def _places(folder: Path, name: str) -> Iterator[Path]:
    """`folder/name`, then the same with a number in front: two uploads may have one name."""
    yield folder / name
    number = 2
    while True:
        yield folder / f"{number}-{name}"
        number += 1
