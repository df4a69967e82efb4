"""What the chip adds up in 16 bits where its interpreter has 32: a group norm's partial sums.

Measured on bm1684x's emulator with tpu-mlir 1.30.2, F16, by the scale at which a group becomes NaN:
a channel has 32 sums, each of every 32nd value. Inside a group of operators they span the picture
(so 128 values at 64x64), outside of one at most 256 values. The squares are added in float32.
"""

import numpy as np

COLUMNS = 32
"""What a lane of the chip adds at once in F16."""

ROWS = (256, 512)
"""How many values a sum has at least and at most, where its group has as many."""

LIMIT = float(np.finfo(np.float16).max)


def sums_overflow(values, groups):
    """Whether a norm of `groups` groups of values [batch, channels, ...] overflows F16 by its sums.

    How the compiler groups operators is not known yet: a sum is taken for as long as it may be.
    What is not finite is no overflow of the norm's.
    """
    channels = values.reshape(values.shape[0] * values.shape[1], -1)
    whole = channels.reshape(values.shape[0] * groups, -1)
    rows = min(max(channels.shape[1] // COLUMNS, ROWS[0]), ROWS[1], whole.shape[1] // COLUMNS)
    if rows == 0:
        return False
    parts = whole.shape[1] // (rows * COLUMNS)
    for group in whole:
        sums = group[: parts * rows * COLUMNS].reshape(parts, rows, COLUMNS).sum(1, np.float64)
        if (np.abs(sums) > LIMIT).any():
            return True
    return False
