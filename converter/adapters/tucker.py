"""The Tucker form of a convolution's change: a small kernel between two channel maps."""

import numpy as np

from converter.adapters.base import Shape
from converter.weights import Array


def tucker(core: Array, up: Array, down: Array) -> Array:
    """``out[o, i, ...] = sum over p, q of up[p, o] * core[p, q, ...] * down[q, i]``.

    `core` is [rank, rank, *kernel], `up` [rank, outputs], `down` [rank, inputs]. Source: LyCORIS,
    `rebuild_tucker`.
    """
    half = np.tensordot(up, core, axes=(0, 0))  # o q ...
    return np.moveaxis(np.tensordot(half, down, axes=(1, 0)), -1, 1)


def tucker_fits(core: Shape, up: Shape, down: Shape, weight: Shape) -> bool:
    """Whether `tucker` of these shapes gives a weight of that shape."""
    return (
        len(core) == len(weight) > 2
        and len(up) == len(down) == 2
        and core == (up[0], down[0], *weight[2:])
        and (up[1], down[1]) == weight[:2]
    )
