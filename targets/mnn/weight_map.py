"""Where every weight of a converted model lies, and in which encoding.

`weights.json` (schema 1) of a skeleton:

    {"nbytes": bytes of the weights file, "constants": [[offset, hexadecimal bytes], ...],
     "weights": [[inside, offset, weight's name, role, turned, encoding], ...]}

`inside` is 1 for bytes of the .mnn itself, `turned` 1 for a matrix that lies there transposed.
Constants are bytes of the weights file that depend on no weight; what nothing names is zero.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.weights import Array
from targets.mnn.encoding import Encoding, without_denormals

WEIGHT_MAP_FILE = "weights.json"


@dataclass(frozen=True)
class PlacedWeight:
    """A weight at `offset` of the .mnn (`inside`) or of the weights file."""

    inside: bool
    offset: int
    source: str
    role: str
    turned: bool
    encoding: Encoding

    def encode(self, values: Array, *, hqq: bool = False) -> Array:
        """The bytes to write there (uint8, flat), from the whole weight (float32)."""
        if self.turned:
            values = values.T
        if self.role == "filter":
            values = values.reshape(len(values), -1)
            values = without_denormals(values)
        return self.encoding.encode(values, hqq=hqq)


@dataclass(frozen=True)
class Constant:
    """Bytes of the weights file that depend on no weight: masks, tables."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class WeightMap:
    """A whole model; `nbytes` are those of its weights file."""

    nbytes: int
    weights: tuple[PlacedWeight, ...]
    constants: tuple[Constant, ...]

    def save(self, folder: Path) -> None:
        """Write `weights.json` into a folder under construction."""
        record = {
            "schema": 1,
            "nbytes": self.nbytes,
            "constants": [[c.offset, c.data.hex()] for c in self.constants],
            "weights": [
                [int(w.inside), w.offset, w.source, w.role, int(w.turned), w.encoding.name]
                for w in self.weights
            ],
        }
        text = json.dumps(record, separators=(",", ":"))
        (folder / WEIGHT_MAP_FILE).write_text(text)

    @classmethod
    def load(cls, folder: Path) -> "WeightMap":
        """Read the map of a skeleton."""
        data: dict[str, Any] = json.loads((folder / WEIGHT_MAP_FILE).read_text())
        return cls(
            data["nbytes"],
            tuple(
                PlacedWeight(bool(i), offset, source, role, bool(turned), Encoding.parse(encoding))
                for i, offset, source, role, turned, encoding in data["weights"]
            ),
            tuple(Constant(offset, bytes.fromhex(text)) for offset, text in data["constants"]),
        )


def head(values: Array, encoding: Encoding) -> bytes:
    """What a weight in this encoding is looked for by: its first values, or its first scale."""
    if not encoding.group:
        return encoding.encode(values.flat[:4]).tobytes()
    return encoding.encode(values.flat[: encoding.group][None])[-8:].tobytes()
