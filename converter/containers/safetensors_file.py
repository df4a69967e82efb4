"""A .safetensors file.

Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header length, a JSON
header of names, dtypes, shapes and byte ranges, then the bytes). It is parsed here and not by the
`safetensors` package because exporting needs each tensor's place in the file: to read in file
order, to give pages back to the system after use, and to say exactly what a damaged header says.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from converter.checkpoint import DTYPES, Checkpoint, TensorInfo
from converter.errors import InputError

LARGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def open_safetensors(path: Path) -> Checkpoint:
    """Read the header; raises InputError for anything that is not a whole safetensors file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        if len(first) < 8:
            raise InputError(f"{path}: not a safetensors file: it has only {len(first)} bytes")
        length = struct.unpack("<Q", first)[0]
        if length > min(size - 8, LARGEST_HEADER):
            raise InputError(
                f"{path}: not a safetensors file, or cut short: its header claims "
                f"{length} bytes and the file has {size}: download it again"
            )
        header = file.read(length)
    tensors, metadata = _parse_header(path, header, base=8 + length)
    _check_ranges(path, tensors, base=8 + length, size=size)
    return Checkpoint(path, tensors, metadata, "safetensors")


def _parse_header(
    path: Path, header: bytes, base: int
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError) as e:
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
            info = TensorInfo(str(entry["dtype"]), shape, base + int(begin), base + int(end), path)
        except (KeyError, TypeError, ValueError, OverflowError) as e:
            raise InputError(f"{path}: damaged header: tensor {name!r} has {entry!r:.200}") from e
        tensors[name] = info
    return tensors, metadata


def _check_ranges(path: Path, tensors: Mapping[str, TensorInfo], base: int, size: int) -> None:
    position = base
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.dtype not in DTYPES:
            raise InputError(
                f"{path}: tensor {name!r} has dtype {info.dtype:.40}, which is not known here; "
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
