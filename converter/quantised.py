"""Quantised values: blocks of numbers that share scales, as ggml stores them in GGUF files.

Layouts: `ggml-common.h` of https://github.com/ggml-org/ggml. The arithmetic is that of the `gguf`
package, which llama.cpp's authors publish.
"""

from math import prod

import numpy as np

from converter.weights import Array

BLOCKS: dict[str, tuple[int, int]] = {
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "IQ4_NL": (32, 18),
    "IQ4_XS": (256, 136),
}
"""ggml's name of a type -> numbers in a block, bytes that it takes."""

AT_ONCE = 1 << 20
"""Numbers that are computed at once: the package needs several times as much while it does."""


def dequantise(stored: Array, kind: str, shape: tuple[int, ...]) -> Array:
    """Return float32 values in `shape` of whole blocks, `stored` as uint8 [bytes]."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    numbers, size = BLOCKS[kind]
    values = np.empty(prod(shape), np.float32)
    step = AT_ONCE // numbers
    for first in range(0, len(stored) // size, step):
        blocks = stored[first * size : (first + step) * size].reshape(1, -1)
        done = dequantize(blocks, GGMLQuantizationType[kind]).reshape(-1)
        values[first * numbers : first * numbers + len(done)] = done
    return values.reshape(shape)
