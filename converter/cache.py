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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from converter.files import orphans
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


class Cache:
    """Entries of one kind ("skeletons", "templates") below the cache folder."""

    def __init__(self, kind: str, root: Path | None = None) -> None:
        self.folder = (root or cache_folder()) / kind

    def find(self, inputs: Mapping[str, str]) -> Path | None:
        """The entry made from exactly these inputs, if there is one."""
        path = self.folder / content_key(inputs)[:32]
        return path if path.is_dir() else None

    def make(self, label: str, inputs: Mapping[str, str], build: Callable[[Path], None]) -> Made:
        """Return the entry for `inputs`, calling `build(folder)` to fill it if it is missing.

        `label` says in a user's words what the entry is ("unet 512x512 f16"); entries of one
        label are compared to say what changed.
        """
        key = content_key(inputs)
        final = self.folder / key[:32]
        if final.is_dir():
            return Made(final, key, reused=True, why=f"same {', '.join(inputs)} as before")
        why = self._what_changed(label, inputs)
        self.folder.mkdir(parents=True, exist_ok=True)
        for orphan in orphans(self.folder, "."):
            shutil.rmtree(orphan, ignore_errors=True)
        prefix = f".{os.getpid()}."
        work = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=self.folder))
        try:
            build(work)
            record = {"label": label, "inputs": dict(inputs)}
            (work / "inputs.json").write_text(json.dumps(record, indent=1))
            try:
                work.rename(final)
            except OSError:
                if not final.is_dir():  # another run finished the same entry first
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return Made(final, key, reused=False, why=why)

    def _what_changed(self, label: str, inputs: Mapping[str, str]) -> str:
        closest: list[str] | None = None
        for record_path in self.folder.glob("*/inputs.json"):
            record = json.loads(record_path.read_text())
            if record["label"] != label:
                continue
            old = record["inputs"]
            changed = [n for n in {**old, **inputs} if old.get(n) != inputs.get(n)]
            if closest is None or len(changed) < len(closest):
                closest = changed
        if closest is None:
            return "made for the first time"
        return f"made again: {', '.join(closest)} changed"
