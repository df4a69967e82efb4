"""A checkpoint file: named tensors, opened by reading the header alone.

Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header length, a JSON
header of names, dtypes, shapes and byte ranges, then the bytes). It is parsed here and not by the
`safetensors` package because exporting needs each tensor's place in the file: to read in file
order, to give pages back to the system after use, and to say exactly what a damaged header says.
"""

import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from converter.errors import InputError
from converter.weights import Array

LARGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""

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


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor. `begin` and `end` are byte positions in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


class Checkpoint:
    """A safetensors file, memory-mapped on first read; `tensors` and `metadata` are its header."""

    def __init__(
        self, path: Path, tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]
    ) -> None:
        self.path = path
        self.tensors = tensors
        self.metadata = metadata
        self._bytes: mmap.mmap | None = None

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """Read the header. Raises InputError for anything that is not a whole safetensors file."""
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                first = file.read(8)
                length = struct.unpack("<Q", first.ljust(8, b"\xff"))[0]
                if length > min(size - 8, LARGEST_HEADER):
                    _refuse_other_formats(path, first)
                    raise InputError(
                        f"{path}: not a safetensors file, or cut short: its header claims "
                        f"{length} bytes and the file has {size}: download it again"
                    )
                header = file.read(length)
        except IsADirectoryError as e:
            raise InputError(
                f"{path}: a folder; diffusers folders are not read yet: give the single "
                ".safetensors file"
            ) from e
        except OSError as e:
            raise InputError(f"{path}: cannot be read ({e.strerror}): check the path") from e
        tensors, metadata = _parse_header(path, header, base=8 + length, size=size)
        return cls(path, tensors, metadata)

    def read(self, name: str) -> Array:
        """A read-only view of one tensor's bytes in the file."""
        info = self.tensors[name]
        if self._bytes is None:
            with self.path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        flat = np.frombuffer(self._bytes, DTYPES[info.dtype], info.parameters, info.begin)
        return flat.reshape(info.shape)

    def release(self, name: str) -> None:
        """Give the pages of one tensor back to the system; reading it again is allowed."""
        if self._bytes is not None:
            info = self.tensors[name]
            first = info.begin // mmap.PAGESIZE * mmap.PAGESIZE
            self._bytes.madvise(mmap.MADV_DONTNEED, first, info.end - first)


def _refuse_other_formats(path: Path, first: bytes) -> None:
    """Name the format of a file whose first bytes are no plausible header length.

    Only then: a length of 640 has the same first bytes as a pickle.
    """
    if first[:4] == b"PK\x03\x04" or first[:1] == b"\x80":
        raise InputError(
            f"{path}: a PyTorch pickle (.ckpt/.pt), which is not read yet: a .safetensors file "
            "was expected; convert it, or download the safetensors variant"
        )
    if first[:4] == b"GGUF":
        raise InputError(f"{path}: a GGUF file, which is not read yet: give a .safetensors file")
    if len(first) < 8:
        raise InputError(f"{path}: not a safetensors file: it has only {len(first)} bytes")


def _parse_header(
    path: Path, header: bytes, base: int, size: int
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    try:
        entries = json.loads(header)
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise InputError(
            f"{path}: not a safetensors file: its header is not JSON ({e}); "
            "a .safetensors checkpoint or LoRA was expected"
        ) from e
    if not isinstance(entries, dict):
        raise InputError(f"{path}: not a safetensors file: its header is no JSON object")
    metadata = entries.pop("__metadata__", None)
    if not isinstance(metadata, dict):
        metadata = {}
    tensors = {}
    for name, entry in entries.items():
        try:
            begin, end = entry["data_offsets"]
            shape = tuple(int(extent) for extent in entry["shape"])
            info = TensorInfo(str(entry["dtype"]), shape, base + int(begin), base + int(end))
        except (KeyError, TypeError, ValueError) as e:
            raise InputError(f"{path}: damaged header: tensor {name!r} has {entry!r}") from e
        tensors[name] = info
    _check_ranges(path, tensors, base, size)
    return tensors, metadata


def _check_ranges(path: Path, tensors: Mapping[str, TensorInfo], base: int, size: int) -> None:
    position = base
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.dtype not in DTYPES:
            raise InputError(
                f"{path}: tensor {name!r} has dtype {info.dtype}, which is not known here; "
                f"known are {', '.join(DTYPES)}"
            )
        wanted = info.parameters * DTYPES[info.dtype].itemsize
        if info.end - info.begin != wanted or min(info.shape, default=0) < 0:
            raise InputError(
                f"{path}: damaged header: tensor {name!r} of shape {list(info.shape)} and dtype "
                f"{info.dtype} takes {wanted} bytes, the header gives it {info.end - info.begin}"
            )
        if info.begin != position:
            raise InputError(
                f"{path}: damaged header: tensor {name!r} starts at byte {info.begin}, "
                f"{position} was expected"
            )
        position = info.end
    if position != size:
        raise InputError(
            f"{path}: the header describes {position} bytes and the file has {size}: "
            f"{'cut short' if size < position else 'damaged'}; download it again"
        )
