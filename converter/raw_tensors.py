"""Tensors as phones exchange them: raw, little-endian, no header; the ending names the type."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converter.errors import InputError
from converter.files import replacing
from converter.weights import Array

DTYPES: dict[str, np.dtype[np.generic]] = {
    ".qfp32": np.dtype("<f4"),
    ".qfp16": np.dtype("<f2"),
    ".qint32": np.dtype("<i4"),
    ".i32": np.dtype("<i4"),
}


def read_raw(path: Path, shape: Sequence[int] | None = None) -> Array:
    """Read a file, flat or in a shape that it fills; raises InputError for any other."""
    dtype = _dtype(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file: check the path")
    size = path.stat().st_size
    count = size // dtype.itemsize if shape is None else int(np.prod(shape, dtype=np.int64))
    if count * dtype.itemsize != size or not size:
        wanted = f"{count} numbers" if shape is not None else "numbers"
        raise InputError(
            f"{path}: {size} bytes are not {wanted} of {dtype.itemsize} bytes each: it is another "
            "tensor, or not whole"
        )
    values = np.fromfile(path, dtype)
    return values if shape is None else values.reshape(shape)


def write_raw(path: Path, values: Array) -> None:
    """Write a file, atomically; values are cast to the type of its ending."""
    dtype = _dtype(path)
    with replacing(path) as work:
        np.ascontiguousarray(values, dtype).tofile(work)


def _dtype(path: Path) -> np.dtype[np.generic]:
    if path.suffix not in DTYPES:
        raise InputError(
            f"{path}: no raw tensor by its ending: it has to be one of {', '.join(DTYPES)}"
        )
    return DTYPES[path.suffix]
