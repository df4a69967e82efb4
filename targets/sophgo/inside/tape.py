"""Write random float32 values: the weights that a skeleton is compiled with.

Runs in the toolchain's Python 3.10:  tape.py FILE COUNT

Their spread is that of real weights, within the range of every precision.
"""

import sys

import numpy as np

SEED = 0
SPREAD = 0.05
"""Standard deviation."""

if __name__ == "__main__":
    FILE, COUNT = sys.argv[1:]
    values = np.random.default_rng(SEED).standard_normal(int(COUNT), dtype=np.float32)
    values *= SPREAD
    values.tofile(FILE)
