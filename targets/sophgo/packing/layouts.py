"""The orders in which a chip keeps the elements of a weight, as data.

A convolution's filter `[outputs, inputs, height, width]` lies in device memory as
`[outputs, ceil(inputs / lanes), height * width, lanes]`, zero-padded: `lanes` inputs are multiplied
at once. With few inputs, the rows of the filter's window, or all of the window, count as inputs
too, so that the lanes are not idle. Found by compiling weights that can be told apart
(`targets.sophgo.packing.learning` says how).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import ml_dtypes
import numpy as np

from converter.weights import Array

DTYPES: dict[str, np.dtype[np.generic]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
"""The compiler's names for element types -> numpy's. Casts round to nearest even."""

LANES = (16, 32, 64)
"""Inputs that are multiplied at once: by chip and precision."""


@dataclass(frozen=True)
class Layout:
    """One order. `arrange` turns a weight into that order; `count` says how many elements result.

    With `by_rows`, the first rows of a weight make the first elements of the result.
    """

    name: str
    ranks: tuple[int, ...]
    arrange: Callable[[Array], Array]
    count: Callable[[tuple[int, ...]], int]
    by_rows: bool = True


def _same(values: Array) -> Array:
    return values


def _transposed(values: Array) -> Array:
    return values.T


def _filter(lanes: int, folded: str) -> Layout:
    def shape(outer: tuple[int, ...]) -> tuple[int, int, int]:
        outputs, inputs, height, width = outer
        split = {"": 1, "-rows": height, "-window": height * width}[folded]
        return outputs, inputs * split, height * width // split

    def arrange(values: Array) -> Array:
        outputs, inputs, taps = shape(values.shape)
        groups = -(-inputs // lanes)
        padded = np.zeros((outputs, groups * lanes, taps), values.dtype)
        padded[:, :inputs] = values.reshape(outputs, inputs, taps)
        return padded.reshape(outputs, groups, lanes, taps).swapaxes(2, 3)

    def count(outer: tuple[int, ...]) -> int:
        outputs, inputs, taps = shape(outer)
        return outputs * -(-inputs // lanes) * lanes * taps

    return Layout(f"filter{folded}-{lanes}", (4,), arrange, count)


def _diagonal(lanes: int) -> Layout:
    """The scale of a norm of few channels: the compiler multiplies by it as a 1x1 convolution."""
    of_filter = _filter(lanes, "")

    def arrange(values: Array) -> Array:
        return of_filter.arrange(np.diag(values.reshape(-1))[:, :, None, None])

    def count(outer: tuple[int, ...]) -> int:
        return of_filter.count((prod(outer), prod(outer), 1, 1))

    return Layout(f"diagonal-{lanes}", (1, 3), arrange, count, by_rows=False)


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("same", (1, 2, 3, 4), _same, prod),
        Layout("transposed", (2,), _transposed, prod, by_rows=False),
        *(_filter(lanes, folded) for folded in ("", "-rows", "-window") for lanes in LANES),
        *(_diagonal(lanes) for lanes in LANES),
    )
}
