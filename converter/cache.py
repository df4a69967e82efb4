"""Content-addressed store: an entry's name is the hash of everything it was made from.

An entry is a folder. It is made under a temporary name and renamed when whole, so a killed run
leaves no half entry, and two runs that make the same entry at once both end with a whole one.
`inputs.json` inside lists what went into the key; it is how a rebuild can say what changed.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from converter.errors import InputError
from converter.files import orphans, read_json
from converter.folders import cache_folder


def content_key(inputs: Mapping[str, object]) -> str:
    """SHA-256 over the canonical JSON of `inputs`, as 64 hexadecimal digits."""
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Made:
    """A cache entry: its folder, whether it was there already, and why in one line."""

    path: Path
    key: str
    reused: bool
    why: str


ENTRY_FILE = "inputs.json"

SKELETONS = "skeletons"
"""The kind of entry that targets compile."""


@dataclass(frozen=True)
class Entry:
    """What an entry says it is, and what it was made from."""

    path: Path
    label: str
    inputs: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.path.iterdir())


def read_entry(folder: Path) -> Entry:
    """Describe one entry; raises InputError when its name is not what it was made from."""
    record = read_json(folder / ENTRY_FILE, "the description of a cache entry")
    try:
        entry = Entry(folder, str(record["label"]), {**record["inputs"]})
    except (KeyError, TypeError) as e:
        raise InputError(f"{folder / ENTRY_FILE}: damaged: it has no {e}") from e
    if content_key(entry.inputs)[:32] != folder.name:
        raise InputError(f"{folder}: damaged: its name is not the hash of what it was made from")
    return entry


def place(work: Path, final: Path) -> None:
    """Give a finished entry its name, unless another run finished the same entry first."""
    try:
        work.rename(final)
    except OSError:
        if not final.is_dir():
            raise


class Cache:
    """Entries of one kind ("skeletons", "templates") below the cache folder."""

    def __init__(self, kind: str, root: Path | None = None) -> None:
        self.folder = (root or cache_folder()) / kind

    def entry(self, key: str) -> Path:
        """Where the entry of a key (`Made.key`) lies, or would."""
        return self.folder / key[:32]

    def find(self, inputs: Mapping[str, str]) -> Path | None:
        """The entry made from exactly these inputs, if there is one."""
        path = self.entry(content_key(inputs))
        return path if path.is_dir() else None

    def make(self, label: str, inputs: Mapping[str, str], build: Callable[[Path], None]) -> Made:
        """Return the entry for `inputs`, calling `build(folder)` to fill it if it is missing.

        `label` says in a user's words what the entry is ("unet 512x512 f16"); entries of one
        label are compared to say what changed.
        """
        key = content_key(inputs)
        final = self.entry(key)
        if final.is_dir():
            return Made(final, key, reused=True, why=f"same {', '.join(inputs)} as before")
        why = self._what_changed(label, inputs)
        with self.scratch() as work:
            build(work)
            record = {"label": label, "inputs": dict(inputs)}
            (work / ENTRY_FILE).write_text(json.dumps(record, indent=1))
            place(work, final)
        return Made(final, key, reused=False, why=why)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder beside the entries, in which new ones can be made; removed afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for orphan in orphans(self.folder, "."):
            shutil.rmtree(orphan, ignore_errors=True)
        prefix = f".{os.getpid()}."
        work = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=self.folder))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def entries(self) -> "list[Entry]":
        """All there are, by label; not those that are being made."""
        found = [read_entry(path.parent) for path in self.folder.glob(f"[!.]*/{ENTRY_FILE}")]
        return sorted(found, key=lambda entry: (entry.label, entry.path.name))

    def _what_changed(self, label: str, inputs: Mapping[str, str]) -> str:
        closest: list[str] | None = None
        for entry in self.entries():
            if entry.label != label:
                continue
            old = entry.inputs
            changed = [n for n in {**old, **inputs} if old.get(n) != inputs.get(n)]
            if closest is None or len(changed) < len(closest):
                closest = changed
        if closest is None:
            return "made for the first time"
        return f"made again: {', '.join(closest)} changed"
