"""What a bound file was made of, so that another binding writes only what has changed since."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converter.weights import WeightSource


@dataclass(frozen=True)
class Contents:
    """What a file was made of; `bytes` and `mtime_ns` tell whether it is that file still."""

    skeletons: tuple[str, ...]
    weights: str
    tensor_keys: dict[str, str]
    bytes: int = 0
    mtime_ns: int = 0

    @classmethod
    def of(cls, skeletons: Sequence[str], weights: WeightSource) -> "Contents":
        """Of a file that is to be made of the skeletons of these keys."""
        return cls(tuple(skeletons), weights.key, dict(weights.tensor_keys))

    @classmethod
    def read(cls, path: Path, described: Path) -> "Contents | None":
        """What `path` is made of, if it is the file that is described (in JSON) in `described`."""
        try:
            stat = path.stat()
            data = json.loads(described.read_text())["contents"]
            found = cls(**{**data, "skeletons": tuple(data["skeletons"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None  # none there, or by another version: it is written anew
        return found if (found.bytes, found.mtime_ns) == (stat.st_size, stat.st_mtime_ns) else None

    def to_json(self, path: Path) -> Mapping[str, Any]:
        """Plain JSON values, once the file has been written."""
        stat = path.stat()
        return asdict(replace(self, bytes=stat.st_size, mtime_ns=stat.st_mtime_ns))

    def is_of(self, other: "Contents") -> bool:
        """Whether the same file would be made of both."""
        return (self.skeletons, self.weights) == (other.skeletons, other.weights)

    def unchanged(self, before: "Contents | None") -> frozenset[str]:
        """The weights that have the values with which an earlier file was made."""
        if before is None:
            return frozenset()
        old = before.tensor_keys
        return frozenset(name for name, key in self.tensor_keys.items() if old.get(name) == key)
