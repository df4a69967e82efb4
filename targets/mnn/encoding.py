"""How MNN keeps the elements of a weight: the bytes of each format, as its converter writes them.

Sources: MNN 3.6.1, `tools/converter/source/common/` (`WeightQuantAndCoding.cpp`,
`SaveHalfFloat.cpp`, `AlignDenormalizedValue.cpp`, `HQQQuantizer.cpp`),
`source/core/IDSTEncoder.hpp`.

Codes of a filter `[outputs, elements]`, in groups of so many consecutive elements of an output:

    1 byte           2, the number of dimensions
    2 x 2 bytes      groups in all, elements of a group (2 x 4 bytes if either exceeds 65535)
    1 byte           2^bits modulo 256
    2^bits bytes     the values of the codes in rising order: -2^(bits-1) to 2^(bits-1) - 1
    codes            minus the least, `bits` each; of two in a byte the first has the high half
    8 bytes a group  its least value and its scale, float32

with scale = (max - min) / (2^bits - 1) and code = round((w - min) / scale) - 2^(bits-1) in float32,
a half rounded away from zero, and nothing but the least code where the scale is below 1e-6.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from converter.weights import Array
from targets.mnn.hqq import half_quadratic

CHUNK = 1 << 21
"""Elements worked on at a time: temporaries stay far below the size of a large weight."""

FLAT = np.float32(1e-6)
"""A group whose scale is not above this has one value."""


@dataclass(frozen=True)
class Encoding:
    """One format. `bits` 32 and 16 are floats; with fewer, `group` elements share a scale."""

    bits: int
    group: int = 0

    @property
    def name(self) -> str:
        """As a map of weights has it: ``32``, ``16``, ``8/576``."""
        return f"{self.bits}/{self.group}" if self.group else str(self.bits)

    @classmethod
    def parse(cls, name: str) -> "Encoding":
        """Read what `name` gives."""
        bits, _, group = name.partition("/")
        return cls(int(bits), int(group or 0))

    def nbytes(self, count: int) -> int:
        """The bytes of so many elements."""
        if not self.group:
            return count * self.bits // 8
        groups = count // self.group
        return len(_header(self.bits, groups, self.group)) + codes_nbytes(count, self.bits, groups)

    def encode(self, values: Array, *, hqq: bool = False) -> Array:
        """The bytes of a weight (uint8, flat); `values` are float32 [outputs, elements] or flat.

        Without `group`, 16 bits are rounded to the nearest, which the converter is not: it cuts
        off, at twice the error. Files are the same where the weights are exact in 16 bits.
        """
        if self.group:
            return self._quantised(values, hqq=hqq)
        dtype = np.dtype(f"<f{self.bits // 8}")
        if self.bits == 16:
            values = values.clip(-65504, 65504)
        return np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8)

    def _quantised(self, values: Array, *, hqq: bool) -> Array:
        groups = values.size // self.group
        header = _header(self.bits, groups, self.group)
        packed = np.empty(self.nbytes(values.size), np.uint8)
        packed[: len(header)] = np.frombuffer(header, np.uint8)
        scales = packed[-8 * groups :].view("<f4").reshape(groups, 2)
        codes = packed[len(header) : -8 * groups]
        place = 0
        for rows in _chunks(values, self.group):
            count = len(rows)
            quantise = half_quadratic if hqq else quantised
            found, scales[place : place + count] = quantise(rows, self.bits)
            start = place * self.group * self.bits // 8
            squeezed = _squeezed(found.reshape(-1), self.bits)
            codes[start : start + len(squeezed)] = squeezed
            place += count
        return packed


def codes_nbytes(count: int, bits: int, groups: int) -> int:
    """Bytes of `count` codes and the scales of their groups."""
    return -(-count * bits // 8) + 8 * groups


def quantised(rows: Array, bits: int) -> tuple[Array, Array]:
    """Codes from 0 on (uint8) and [least value, scale] (float32) of groups, one a row."""
    low, high = rows.min(axis=1), rows.max(axis=1)
    scale = ((high - low) / np.float32(2**bits - 1)).astype(np.float32)
    flat = ~(scale > FLAT)
    divisor = np.where(flat, np.float32(1), scale)
    steps = rounded((rows - low[:, None]) / divisor[:, None])
    codes = steps.clip(0, 2**bits - 1).astype(np.uint8)
    codes[flat] = 0
    return codes, np.stack([low, scale], axis=1)


def rounded(values: Array) -> Array:
    """To the nearest integer, a half away from zero, as C rounds."""
    whole = np.trunc(values)
    return np.asarray(whole + np.copysign(np.abs(values - whole) >= 0.5, values), values.dtype)


def without_denormals(values: Array) -> Array:
    """Zeros in the place of values so small that processors treat them apart (filters only).

    A zero loses its sign too.
    """
    small = np.abs(values) < np.finfo(np.float32).tiny
    return np.where(small, np.float32(0), values) if small.any() else values


def _header(bits: int, groups: int, group: int) -> bytes:
    width = 4 if max(groups, group) > 0xFFFF else 2
    dims = groups.to_bytes(width, "little") + group.to_bytes(width, "little")
    values = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)).astype(np.int8).tobytes()
    return bytes([2]) + dims + bytes([2**bits % 256]) + values


def _chunks(values: Array, group: int) -> Iterator[Array]:
    """Groups as rows, in order, whole outputs at a time; an even number of elements each time."""
    outputs = values.reshape(values.shape[0], -1)
    step = max(1, CHUNK // prod(outputs.shape[1:]))
    step += step % 2
    for start in range(0, len(outputs), step):
        chunk = np.ascontiguousarray(outputs[start : start + step], np.float32)
        yield chunk.reshape(-1, group)


def _squeezed(codes: Array, bits: int) -> Array:
    """Codes of 8 bits as they are; two of 4 bits in a byte."""
    if bits == 8:
        return codes
    if len(codes) % 2:
        codes = np.append(codes, np.uint8(0))
    return np.asarray(codes[::2] << 4 | codes[1::2])
