"""From a source, as a visitor names it, to a path on this machine."""

import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from converter.downloads.addresses import parse_address
from converter.downloads.fetch import local_path
from converter.downloads.policy import DownloadPolicy
from converter.errors import InputError
from converter.files import link_or_copy, read_json, write_json
from converter.progress import Progress
from sdconv.page.order import Order
from sdconv.page.workspace import Workspace, clean_name

KEPT = "input:"
"""Begins the source of what a job keeps in its own folder, and is followed by the file's name."""

INPUTS = "inputs"


def is_address(source: str) -> bool:
    """Whether it has to be fetched; raises InputError for an address that is not safe or whole."""
    return parse_address(source) is not None


@dataclass(frozen=True)
class Sources:
    """Finds what a visitor names, and with the folder of a `job` also what that keeps."""

    workspace: Workspace
    job: Path | None = None

    def local(self, source: str, variant: str = "") -> Path:
        """Where a source is; InputError if he may not name it, or it is not fetched yet."""
        if self.job is not None and source.startswith(KEPT):
            return self._kept(self.job, source.removeprefix(KEPT))
        if not is_address(source):
            return self.workspace.find(source)
        fetched = self.fetched(source, variant)
        if fetched is None:
            raise InputError(f"{source}: not fetched yet: fetch it first")
        return fetched

    def _kept(self, job: Path, name: str) -> Path:
        path = job / INPUTS / name
        if name != clean_name(name) or path.is_symlink() or not path.is_file():
            raise InputError(f"{name}: not among the job's own files: give the job up, and again")
        return path

    def fetched(self, address: str, variant: str = "") -> Path | None:
        """Where an address was fetched to; None if it was not, or is not there any more."""
        record = self._record(address, variant)
        if not record.is_file():
            return None
        path = Path(str(read_json(record, "the record of a download").get("path")))
        if not path.exists() or not path.resolve().is_relative_to(self.workspace.downloads):
            return None
        with suppress(OSError):
            os.utime(record)  # it is in use: keep it
        return path

    def fetch(self, address: str, variant: str, policy: DownloadPolicy, progress: Progress) -> Path:
        """Fetch an address, or ask whether what was fetched is still the newest."""
        folder = self.workspace.downloads
        path = local_path(address, variant or None, progress, folder=folder, policy=policy)
        write_json(self._record(address, variant), {"address": address, "path": str(path)})
        return path

    def _record(self, address: str, variant: str) -> Path:
        name = sha256(f"{address}\n{variant}".encode()).hexdigest()[:32]
        return self.workspace.downloads / "fetched" / f"{name}.json"


def keep_uploads(order: Order, workspace: Workspace, job: Path) -> Order:
    """Give the uploads that an order names a place in the job's folder, which outlives them.

    A hard link costs nothing. Other sources stay what they are.
    """
    taken: set[str] = set()

    def kept(source: str) -> str:
        if is_address(source):
            return source
        path = workspace.find(source)
        if not workspace.is_upload(path):
            return str(path.relative_to(workspace.root))
        name = clean_name(path.name)
        number = 2
        while name in taken:
            name = clean_name(f"{number}-{path.name}")
            number += 1
        taken.add(name)
        link_or_copy(path, job / INPUTS / name)
        return KEPT + name

    moved = {source: kept(source) for source in order.sources()}
    return order.with_sources(moved.__getitem__)
