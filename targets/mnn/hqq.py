"""Half-quadratic quantisation, as MNN's converter does it with --hqq.

After Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models" (2023), in the
form of MNN 3.6.1 (`HQQQuantizer.cpp`): the scale stays that of the least and largest weight, and
the zero point z is improved `ROUNDS` times, W being a group's weights and s one over the scale:

    Q = round(W s + z), within the range of the codes
    R = (Q - z) / s
    E = shrink(W - R),   shrink(x) = sign(x) max(0, |x| - |x|^(p - 1) / beta)
    z = mean(Q - (W - E) s)

The mean is over one group, and MNN adds up as many values at a time as the processor has lanes. Its
last bits therefore depend on the machine, and so do one code in ten thousand and the last bits of
the least values; nothing else does.
"""

import numpy as np

from converter.weights import Array

ROUNDS = 20
BETA = np.float32(10)
P = np.float32(0.7)
SMALLEST = np.float32(1e-7)
"""Of a scale."""
FREE = np.float32(0.17)
"""Below this |x|, shrink(x) is zero: |x|^(2 - p) < 1 / beta."""


def half_quadratic(rows: Array, bits: int) -> tuple[Array, Array]:
    """Codes from 0 on (uint8) and [least value, scale] (float32) of groups, one a row."""
    top = np.float32(2**bits - 1)
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    inverse = 1 / np.maximum((high - low) * (1 / top), SMALLEST)
    zero = inverse * -low
    scaled = rows * inverse
    back = 1 / inverse
    for _ in range(ROUNDS):
        codes = np.rint(scaled + zero).clip(0, top)
        error = rows - (codes - zero) * back
        if np.abs(error).max(initial=0) < FREE:
            zero = np.mean(codes - scaled, axis=1, keepdims=True, dtype=np.float32)
        else:
            kept = rows - _shrunk(error)
            zero = np.mean(codes - kept * inverse, axis=1, keepdims=True, dtype=np.float32)
    scale = 1 / inverse
    least = -(zero * scale)
    codes = np.rint((rows - least) * inverse).clip(0, top).astype(np.uint8)
    return codes, np.concatenate([least, scale], axis=1)


def _shrunk(error: Array) -> Array:
    size = np.abs(error)
    threshold = np.power(np.maximum(size, np.float32(1e-8)), P - 1) / BETA
    return np.asarray(np.maximum(size - threshold, 0) * np.sign(error))
