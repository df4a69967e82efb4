"""The page's root folder: which files below it a visitor may name, and where the page writes.

ROOT/...         checkpoints, LoRAs, diffusers folders, bundles: the owner's, only read
ROOT/jobs/       one folder a job
ROOT/uploads/    what visitors uploaded
ROOT/downloads/  what visitors had fetched
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from converter.bundle import BUNDLE_FILE
from converter.containers.adapter_folder import CONFIG as ADAPTER_CONFIG
from converter.containers.adapter_folder import adapter_in
from converter.containers.diffusers_folder import CONFIG, PARTS
from converter.containers.shards import is_index, shard_of
from converter.errors import InputError

MODEL_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
"""Files that are listed and that may be uploaded; what one really is, its content says."""

MOST_OFFERED = 500
"""Entries listed for choosing; any other below the root can be typed."""

DEEPEST = 6
"""Folders between the root and an entry that is listed."""


def clean_name(name: str) -> str:
    """A file name of letters, digits, dot, dash and underscore, with the ending of a model."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name).name)
    ending = next((e for e in MODEL_ENDINGS if plain.lower().endswith(e)), "")
    stem = plain.removesuffix(plain[len(plain) - len(ending) :]).strip("._-")[:100]
    return (stem or "file") + (ending or MODEL_ENDINGS[0])


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
            for own in workspace.own:
                own.mkdir(exist_ok=True)
                if own.is_symlink():
                    raise InputError(f"{own}: a symbolic link, where a folder was expected")
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
        """Where the web server puts what is uploaded."""
        return self.root / "uploads"

    @property
    def downloads(self) -> Path:
        """Where what was fetched for visitors is kept."""
        return self.root / "downloads"

    @property
    def own(self) -> tuple[Path, Path, Path]:
        """The folders that the page writes; nothing else below the root is ever changed."""
        return self.jobs, self.uploads, self.downloads

    def find(self, text: str) -> Path:
        """The file or folder that a visitor uploaded or named; InputError unless he may.

        What lies outside, links followed, is answered like what does not exist, so nothing can be
        probed; likewise other visitors' jobs. Uploads lie below names that nobody can guess.
        """
        try:
            path = (self.root / text).resolve()
            found = self._may_be_named(path) and all(map(self._holds, _read_with(path)))
        except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a null byte
            found = False
        if not found:
            raise InputError(
                f"{text!r}: no such file or folder below the root folder: choose one of the list, "
                "or upload it"
            )
        return path

    def _may_be_named(self, path: Path) -> bool:
        if not self._holds(path) or path in (self.root, *self.own) or not path.exists():
            return False
        if path.is_relative_to(self.uploads):
            return path.is_file() and path.parent.parent == self.uploads
        return not path.is_relative_to(self.jobs) and not path.is_relative_to(self.downloads)

    def _holds(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root)

    def is_upload(self, path: Path) -> bool:
        """Whether a file that was found is an upload, which is removed after a while."""
        return path.is_relative_to(self.uploads)

    def offered(self) -> list[str]:
        """The models below the root that can be chosen, relative to it, in order."""
        return self._listed(_is_model)

    def bundles(self) -> list[str]:
        """The bundles below the root, relative to it, in order."""
        return self._listed(lambda path: (path / BUNDLE_FILE).is_file())

    def _listed(self, wanted: Callable[[Path], bool]) -> list[str]:
        found = (path for path in self._entries(self.root) if wanted(path))
        return sorted(str(p.relative_to(self.root)) for p in islice(found, MOST_OFFERED))

    def _entries(self, folder: Path, depth: int = 0) -> Iterator[Path]:
        """Files and folders, but for the page's own, hidden ones, and links that lead outside."""
        try:
            entries = sorted(folder.iterdir())
        except OSError:  # not readable for the page
            return
        for path in entries:
            if path.name.startswith(".") or path in self.own or not self._holds(path):
                continue
            yield path
            descend = path.is_dir() and not path.is_symlink() and depth < DEEPEST
            if descend and not (_is_model_folder(path) or (path / BUNDLE_FILE).is_file()):
                yield from self._entries(path, depth + 1)


def _is_model(path: Path) -> bool:
    """Whether it can be chosen: of a sharded checkpoint, its index."""
    if path.is_dir():
        return _is_model_folder(path)
    weights = path.suffix in MODEL_ENDINGS and shard_of(path.name) is None
    return weights or is_index(path)


def _is_model_folder(path: Path) -> bool:
    parts = any((path / part / CONFIG).is_file() for part in PARTS)
    return parts or adapter_in(path) is not None


def _read_with(path: Path) -> Iterator[Path]:
    """Everything that is read when this is opened as a model."""
    yield path
    if path.is_dir():
        yield from path.rglob("*")
        return
    yield path.with_name(ADAPTER_CONFIG)
    if is_index(path) or shard_of(path.name) is not None:
        yield from (p for p in path.parent.iterdir() if shard_of(p.name) is not None)
