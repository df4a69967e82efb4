"""A picture that a device wrote as a raw tensor."""

from math import isqrt
from pathlib import Path

import numpy as np

from converter.errors import InputError
from converter.raw_tensors import read_raw
from converter.sizes import Size
from converter.weights import Array


def read_picture(path: Path, size: str | None, *, channels_last: bool = False) -> Array:
    """Read [1, 3, H, W] (or [1, H, W, 3]) as float32 [3, H, W]; `size` None: a square.

    Raises InputError for a tensor of another size.
    """
    if size is None:
        values = read_raw(path)
        side = isqrt(values.size // 3)
        if 3 * side * side != values.size:
            raise InputError(
                f"{path}: {values.size} numbers are no square picture: add --size WIDTHxHEIGHT"
            )
        found = Size(side, side)
    else:
        found = Size.parse(size)
    shape = (3, found.height, found.width)
    values = read_raw(path, (*shape[1:], 3) if channels_last else shape).astype(np.float32)
    return values.transpose(2, 0, 1) if channels_last else values
