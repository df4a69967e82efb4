"""What a job made to be taken away: its files by name, as one archive, and whether they changed."""

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from converter.files import blake3_of, size_of
from sdconv.page.jobs import Job
from sdconv.page.requests import ARTIFACTS, BUNDLE
from targets.manifest import MANIFEST_FILE, Manifest

CHUNK = 1 << 20
REPORT, REPORT_JSON = "report.html", "report.json"

Files = Mapping[str, Path]
"""Name for the visitor, in the consumer's folder layout -> path."""


def made_files(job: Job) -> Files:
    """The artifacts of a job, where their consumers open them, with what describes them."""
    folder = job.folder / ARTIFACTS
    manifest = Manifest.load(folder)
    names = [name for a in manifest.artifacts for name in (a.path, *a.files)]
    names += [MANIFEST_FILE, REPORT, REPORT_JSON]
    return {name: folder / name for name in dict.fromkeys(names)}


def bundle_files(job: Job) -> Files:
    """The bundle of a job: graphs, weights, TorchScript."""
    folder = job.folder / BUNDLE
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("."))
    return {str(path.relative_to(folder)): path for path in files}


def described(files: Files) -> dict[str, dict[str, Any]]:
    """Size and BLAKE3 of each file, for the record of what was made."""
    return {
        name: {"bytes": path.stat().st_size, "blake3": blake3_of(path)}
        for name, path in files.items()
    }


def files_of(job: Job) -> Files:
    """What may be downloaded: what the outcome of a job names and nothing else."""
    outcome = job.outcome
    if outcome is None or not outcome.succeeded:
        return {}
    folder = job.folder / (BUNDLE if outcome.kind == "exported" else ARTIFACTS)
    return {
        name: path
        for name in outcome.files
        if (path := folder / name).resolve().is_relative_to(job.folder) and path.is_file()
    }


def changed(job: Job) -> list[str]:
    """The files that are not, or not any more, what was made."""
    outcome = job.outcome
    if outcome is None:
        return []
    there = files_of(job)
    return [
        name
        for name, facts in outcome.files.items()
        if name not in there
        or size_of(there[name]) != facts.get("bytes")
        or blake3_of(there[name]) != facts.get("blake3")
    ]


class _Pipe:
    """A file that is written by `zipfile` and read in pieces."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""

    def taken(self) -> bytes:
        """What was written since this was last asked."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def archive(files: Files) -> Iterator[bytes]:
    """A zip of these files, made while it is read; not compressed, for weights are noise."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as packed:
        for name, path in files.items():
            entry = zipfile.ZipInfo.from_file(path, name)
            with path.open("rb") as source, packed.open(entry, "w", force_zip64=True) as place:
                while piece := source.read(CHUNK):
                    place.write(piece)
                    yield pipe.taken()
    yield pipe.taken()


def bytes_below(folder: Path, seen: set[tuple[int, int]]) -> int:
    """What a folder occupies, in bytes; of files with several names (`seen`), each once."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                stat = os.lstat(Path(root) / name)
            except OSError:  # removed meanwhile
                continue
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                total += stat.st_blocks * 512
    return total
