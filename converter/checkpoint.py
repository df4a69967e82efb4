"""A checkpoint: named tensors and where each one's bytes lie, whatever container they came in.

Every container (`converter.containers`) is read to the same thing, a table from names to
places in files. Renaming, joining parts, choosing EMA copies and descaling float8 are changes to
that table; only `Checkpoint.read` touches the bytes, one memory-mapped tensor at a time.
"""

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from converter.files import let_go
from converter.quantised import BLOCKS, dequantise
from converter.weights import Array

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""Dtypes under the names of the safetensors format; values are little-endian."""


def element_bytes(dtype: str) -> int:
    """Bytes that one element takes once it is read; quantised ones become float32."""
    return 4 if dtype in BLOCKS else DTYPES[dtype].itemsize


@dataclass(frozen=True)
class TensorInfo:
    """One tensor's place: bytes `begin` to `end` of `file`, holding `shape` elements of `dtype`.

    `dtype` is one of `DTYPES` or a quantised one, of `converter.quantised.BLOCKS`.
    `strides`, in elements, is given where the elements are not in row-major order. `scale` is
    the place of a factor (one number, or one per row) by which scaled float8 is multiplied.
    `added` and `subtracted` are tensors of as many elements whose values go into this one's.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    file: Path = Path()
    strides: tuple[int, ...] | None = None
    scale: "TensorInfo | None" = None
    added: tuple["TensorInfo", ...] = ()
    subtracted: tuple["TensorInfo", ...] = ()

    @property
    def terms(self) -> tuple["TensorInfo", ...]:
        """This tensor and those that go into its values."""
        return (self, *self.added, *self.subtracted)

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def content(self, contents: Mapping[Path, str]) -> list[object]:
        """What the values depend on, as JSON; `contents` maps each file to its hash."""
        scale = None if self.scale is None else self.scale.content(contents)
        mine = [contents[self.file], self.begin, self.dtype, self.shape, self.strides, scale]
        if len(self.terms) == 1:
            return mine
        others = [[i.content(contents) for i in side] for side in (self.added, self.subtracted)]
        return [*mine, *others]


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors at places in files, which are memory-mapped on first read.

    `container` says in a user's words what they came in; `configs` maps parts ("unet") to the
    `config.json` that lay beside their weights, "scheduler" to the scheduler's.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    container: str = "safetensors"
    configs: Mapping[str, Path] = field(default_factory=dict)
    _maps: dict[Path, mmap.mmap] = field(default_factory=dict, repr=False, compare=False)

    def with_tensors(self, tensors: Mapping[str, TensorInfo]) -> "Checkpoint":
        """The same checkpoint with another table."""
        return replace(self, tensors=tensors)

    @property
    def files(self) -> list[Path]:
        """Every file that holds a tensor, in the order of the table."""
        infos = (term for info in self.tensors.values() for term in info.terms)
        return list(dict.fromkeys(term.file for term in infos))

    def position(self, name: str) -> tuple[Path, int]:
        """A sort key: in this order, every file is read from its beginning to its end."""
        info = self.tensors[name]
        return info.file, info.begin

    def read(self, name: str) -> Array:
        """One tensor: a read-only view of the file.

        A scaled or quantised one is a new float32 array, a sum a new float64 array.
        """
        info = self.tensors[name]
        if len(info.terms) == 1:
            return self._stored(info)
        total: Array = self._stored(info).astype(np.float64)
        for term in info.added:
            total += self._stored(term).reshape(info.shape).astype(np.float64)
        for term in info.subtracted:
            total -= self._stored(term).reshape(info.shape).astype(np.float64)
        return total

    def _stored(self, info: TensorInfo) -> Array:
        stored = self._view(info)
        if info.scale is None:
            return stored
        scale = self._view(info.scale).astype(np.float32)
        rows = (scale.size,) + (1,) * (len(info.shape) - 1) if info.shape else ()
        scaled: Array = stored.astype(np.float32) * scale.reshape(rows)
        return scaled

    def _view(self, info: TensorInfo) -> Array:
        if info.file not in self._maps:
            with info.file.open("rb") as file:
                self._maps[info.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if info.dtype in BLOCKS:
            stored = np.frombuffer(
                self._maps[info.file], np.uint8, info.end - info.begin, info.begin
            )
            return dequantise(stored, info.dtype, info.shape)
        dtype = DTYPES[info.dtype]
        count = (info.end - info.begin) // dtype.itemsize
        flat = np.frombuffer(self._maps[info.file], dtype, count, info.begin)
        if info.strides is None:
            return flat.reshape(info.shape)
        steps = [stride * dtype.itemsize for stride in info.strides]
        return np.lib.stride_tricks.as_strided(flat, info.shape, steps, writeable=False)

    def release(self, name: str) -> None:
        """Give the pages of one tensor back to the system; reading it again is allowed."""
        for info in self.tensors[name].terms:
            if info.file in self._maps:
                let_go(self._maps[info.file], info.begin, info.end)
