"""Where every weight of a compiled network lies in its weight region, and in which form.

`weights.json` (schema 1) of a skeleton:

    {"region": bytes, "constants": [[offset, hexadecimal bytes], ...],
     "weights": [[offset, weight's name, part, layout, dtype], ...]}

`part` is `[]` for a whole weight, else start and stop per axis. Bytes that nothing names are zero.
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converter.weights import Array
from targets.sophgo.packing.layouts import DTYPES, LAYOUTS

WEIGHT_MAP_FILE = "weights.json"

Part = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PackedWeight:
    """A weight, or a part of one, as it lies in the region. `offset` is in bytes."""

    offset: int
    source: str
    part: Part
    layout: str
    dtype: str

    def nbytes(self, shape: Sequence[int]) -> int:
        """How many bytes it takes there, given the shape of the whole weight."""
        cut = tuple(stop - start for start, stop in self.part) or tuple(shape)
        return LAYOUTS[self.layout].count(cut) * DTYPES[self.dtype].itemsize

    def pack(self, values: Array) -> Array:
        """The bytes to write there (uint8, flat), from the whole weight (float32)."""
        cut = values[tuple(slice(*ends) for ends in self.part)]
        layout, dtype = LAYOUTS[self.layout], DTYPES[self.dtype]
        arranged = layout.arrange(cut if layout.exact else cut.astype(dtype))
        return np.ascontiguousarray(arranged, dtype).reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class Constant:
    """Bytes that depend on no weight: masks, tables of indices."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class WeightMap:
    """A whole region of `region` bytes. Both lists are in the order of their offsets."""

    region: int
    weights: tuple[PackedWeight, ...]
    constants: tuple[Constant, ...]

    @property
    def identity(self) -> str:
        """Equal for two maps that make equal regions of the same weights."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def run(self, start: int, size: int) -> "WeightMap":
        """What lies in `size` bytes from `start` on, as a map of its own."""
        mine = bisect_left(self.weights, start, key=_offset)
        end = bisect_left(self.weights, start + size, key=_offset)
        weights = (replace(w, offset=w.offset - start) for w in self.weights[mine:end])
        mine = bisect_left(self.constants, start, key=_offset)
        end = bisect_left(self.constants, start + size, key=_offset)
        constants = (replace(c, offset=c.offset - start) for c in self.constants[mine:end])
        return WeightMap(size, tuple(weights), tuple(constants))

    def save(self, folder: Path) -> None:
        """Write `weights.json` into a folder under construction."""
        (folder / WEIGHT_MAP_FILE).write_text(self._text())

    @classmethod
    def load(cls, folder: Path) -> "WeightMap":
        """Read the map of a skeleton."""
        data: dict[str, Any] = json.loads((folder / WEIGHT_MAP_FILE).read_text())
        return cls(
            data["region"],
            tuple(
                PackedWeight(offset, source, tuple((a, b) for a, b in part), layout, dtype)
                for offset, source, part, layout, dtype in data["weights"]
            ),
            tuple(Constant(offset, bytes.fromhex(text)) for offset, text in data["constants"]),
        )

    def _text(self) -> str:
        return json.dumps(
            {
                "schema": 1,
                "region": self.region,
                "constants": [[c.offset, c.data.hex()] for c in self.constants],
                "weights": [[w.offset, w.source, w.part, w.layout, w.dtype] for w in self.weights],
            },
            separators=(",", ":"),
        )


def joined(region: int, runs: Sequence[tuple[int, WeightMap]]) -> WeightMap:
    """A map of `region` bytes made of runs at offsets."""
    weights = [replace(w, offset=w.offset + at) for at, run in runs for w in run.weights]
    constants = [replace(c, offset=c.offset + at) for at, run in runs for c in run.constants]
    return WeightMap(
        region, tuple(sorted(weights, key=_offset)), tuple(sorted(constants, key=_offset))
    )


def _offset(item: PackedWeight | Constant) -> int:
    return item.offset
