"""The orders in which a chip keeps the elements of a weight, as data.

A convolution's filter `[outputs, inputs, height, width]` lies in device memory as
`[outputs, ceil(inputs / lanes), height * width, lanes]`, zero-padded: `lanes` inputs are multiplied
at once. With few inputs, the rows of the filter's window, or all of the window, count as inputs
too, so that the lanes are not idle. Found by compiling weights that can be told apart
(`targets.sophgo.packing.learning` says how).

At W8 and W4 the matrix of a product `[inputs, outputs]` lies transposed, and so many inputs of an
output at a time form a group, with a scale and a zero point of its own (the formulas are at
`_quantise`). Scales and zero points are dealt to the chip's units in turn:
`[units, outputs / units, groups]`; a BM1684X2 has both in half precision, one behind the other:
`[outputs, groups, {zero point, scale}]`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import ml_dtypes
import numpy as np

from converter.weights import Array
from targets.sophgo.precisions import GROUP

CODES = "ui8"
"""The element type that only codes and zero points have."""

DTYPES: dict[str, np.dtype[np.generic]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    CODES: np.dtype(np.uint8),
}
"""The compiler's names for element types -> numpy's. Casts round to nearest even."""

LANES = (16, 32, 64)
"""Inputs that are multiplied at once: by chip and precision."""

UNITS = (32, 64)
"""Units that compute side by side: by chip."""

Cut = Callable[[Array], Array]


@dataclass(frozen=True)
class Layout:
    """One order. `arrange` turns a weight into that order; `count` says how many elements result.

    It is given values cast already, or with `exact` float32 ones. `first`, where there is one, cuts
    off a small part of a weight that, arranged, makes the first elements of the result.
    """

    name: str
    ranks: tuple[int, ...]
    arrange: Cut
    count: Callable[[tuple[int, ...]], int]
    first: Cut | None = None
    exact: bool = False

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of this shape can lie in this order."""
        return len(shape) in self.ranks


def _first_row(values: Array) -> Array:
    return values[:1]


def _first_column(values: Array) -> Array:
    return values[:, :1]


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

    return Layout(f"filter{folded}-{lanes}", (4,), arrange, count, _first_row)


def _diagonal(lanes: int) -> Layout:
    """The scale of a norm of few channels: the compiler multiplies by it as a 1x1 convolution."""
    of_filter = _filter(lanes, "")

    def arrange(values: Array) -> Array:
        return of_filter.arrange(np.diag(values.reshape(-1))[:, :, None, None])

    def count(outer: tuple[int, ...]) -> int:
        return of_filter.count((prod(outer), prod(outer), 1, 1))

    return Layout(f"diagonal-{lanes}", (1, 3), arrange, count)


@dataclass(frozen=True)
class Quantised(Layout):
    """An order of codes, scales or zero points of a matrix whose inputs form groups of `GROUP`.

    The matrix is `[inputs, outputs]`, or with `turned` `[outputs, inputs]`. `dtype` is one of
    `DTYPES`; None stands for that of the activations.
    """

    turned: bool = False
    dtype: str | None = CODES

    def sides(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Inputs and outputs of a matrix."""
        return (shape[1], shape[0]) if self.turned else (shape[0], shape[1])

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether it is a matrix whose inputs fill whole groups."""
        return super().takes(shape) and self.sides(shape)[0] % GROUP == 0

    def outputs(self, shape: tuple[int, ...], start: int, stop: int) -> tuple[tuple[int, int], ...]:
        """The part of a matrix that makes these outputs: where it begins and ends by axis."""
        run, all_ = (start, stop), (0, self.sides(shape)[0])
        return (run, all_) if self.turned else (all_, run)


def _quantise(matrix: Array, bits: int) -> tuple[Array, Array, Array]:
    """Codes, scales (float32) and zero points of a matrix, as tpu-mlir computes them in float32.

    scale = max(max - min, 1e-5) / (2^bits - 1), zero = round(-min / scale) and code =
    round(w / scale) + zero, both within 0 to 2^bits - 1; a half is rounded away from zero
    (`A16MatMulAdjust` in tpu-mlir's `Canonicalize/A16MatMul.cpp`). Arrays [outputs, groups, ...].
    """
    levels = 2**bits - 1
    groups = matrix.T.reshape(matrix.shape[1], -1, GROUP)
    low, high = groups.min(axis=2), groups.max(axis=2)
    scales = np.maximum(high - low, np.float32(1e-5)) / np.float32(levels)
    zeros = np.clip(-_rounded(low / scales), 0, levels)
    codes = np.clip(_rounded(groups / scales[:, :, None]) + zeros[:, :, None], 0, levels)
    return codes.astype(np.uint8), scales, zeros.astype(np.uint8)


def _rounded(values: Array) -> Array:
    """To the nearest integer, halves away from zero."""
    whole = np.trunc(values)
    return np.asarray(whole + np.copysign(np.abs(values - whole) >= 0.5, values), values.dtype)


def _codes(bits: int, *, turned: bool) -> Quantised:
    per_byte = 8 // bits

    def arrange(values: Array) -> Array:
        matrix = values.T if turned else values
        codes = _quantise(matrix, bits)[0].reshape(matrix.shape[1], -1, per_byte)
        shifts = np.array(range(0, 8, bits), np.uint8)
        return np.asarray(np.bitwise_or.reduce(codes << shifts, axis=2))

    def count(outer: tuple[int, ...]) -> int:
        return prod(outer) // per_byte

    name, first = _turned(f"codes-{bits}", turned=turned)
    return Quantised(name, (2,), arrange, count, first, exact=True, turned=turned)


def _per_group(what: str, bits: int, units: int, *, turned: bool) -> Quantised:
    index = ("codes", "scales", "zeros").index(what)

    def arrange(values: Array) -> Array:
        dealt = _quantise(values.T if turned else values, bits)[index]
        outputs, groups = dealt.shape
        if outputs % units:
            return dealt
        return dealt.reshape(outputs // units, units, groups).swapaxes(0, 1)

    def count(outer: tuple[int, ...]) -> int:
        return prod(outer) // GROUP

    name, first = _turned(f"{what}-{bits}-{units}", turned=turned)
    dtype = CODES if what == "zeros" else None
    return Quantised(name, (2,), arrange, count, first, exact=True, turned=turned, dtype=dtype)


def _zeros_and_scales(bits: int, *, turned: bool) -> Quantised:
    def arrange(values: Array) -> Array:
        _, scales, zeros = _quantise(values.T if turned else values, bits)
        return np.stack([zeros.astype(np.float32), scales], axis=2)

    def count(outer: tuple[int, ...]) -> int:
        return 2 * prod(outer) // GROUP

    name, first = _turned(f"zeros-scales-{bits}", turned=turned)
    return Quantised(name, (2,), arrange, count, first, exact=True, turned=turned, dtype=None)


def _turned(name: str, *, turned: bool) -> tuple[str, Cut]:
    return (f"{name}-turned", _first_row) if turned else (name, _first_column)


def _all_quantised(*, turned: bool) -> Iterator[Quantised]:
    for bits in (8, 4):
        yield _codes(bits, turned=turned)
        yield _zeros_and_scales(bits, turned=turned)
        for units in UNITS:
            yield _per_group("scales", bits, units, turned=turned)
            yield _per_group("zeros", bits, units, turned=turned)


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("same", (1, 2, 3, 4), _same, prod, _first_row),
        Layout("transposed", (2,), _transposed, prod, _first_column),
        *(_filter(lanes, folded) for folded in ("", "-rows", "-window") for lanes in LANES),
        *(_diagonal(lanes) for lanes in LANES),
        *_all_quantised(turned=False),
        *_all_quantised(turned=True),
    )
}
