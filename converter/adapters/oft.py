"""OFT and BOFT: the outputs of a layer are rotated, ``W -> rescale * R W``.

R is block-diagonal; each block is the Cayley transform ``(I + Q) (I - Q)^-1`` of a skew-symmetric
``Q = blocks - blocks^T``. BOFT multiplies several such R, with the rows permuted like a butterfly
between them. `alpha` bounds the norm of Q, in units of the outputs.

Sources: https://arxiv.org/abs/2306.07280, https://arxiv.org/abs/2311.06243; keys, the transposed
product of OFT (but not of BOFT) and the bound as in kohya's `oft.py` and LyCORIS. Files made before
LyCORIS 2 hold R itself, as `oft_diag`.
"""

from math import prod

import numpy as np

from converter.adapters.base import Kind, Parts, Shape, Shapes, matrix
from converter.weights import Array


def fits(shapes: Shapes, weight: Shape) -> bool:
    """Blocks are [number, size, size], number * size = outputs; BOFT has them per stage."""
    blocks = shapes["oft_blocks" if "oft_blocks" in shapes else "oft_diag"]
    if len(blocks) not in (3, 4) or (len(blocks) == 4 and "oft_diag" in shapes):
        return False
    number, size, other = blocks[-3:]
    rescale = shapes.get("rescale", weight[:1])
    if size != other or number * size != weight[0] or prod(rescale) != weight[0]:
        return False
    # A butterfly pairs ever longer runs of half a block.
    return len(blocks) == 3 or (size % 2 == 0 and weight[0] % (2 ** (blocks[0] - 1) * size) == 0)


def change(weight: Array, parts: Parts) -> Array:
    """Return what the rotation changes."""
    rows = matrix(weight)
    blocks = parts.get("oft_blocks")
    if blocks is None:
        rotated = block_product(parts["oft_diag"].swapaxes(-1, -2), rows)
    else:
        skew = blocks - blocks.swapaxes(-1, -2)
        rotation = cayley(_bounded(skew, _bound(parts, len(rows))))
        if blocks.ndim == 4:
            rotated = _butterfly(rotation, rows)
        else:
            rotated = block_product(rotation.swapaxes(-1, -2), rows)
    if "rescale" in parts:
        rotated *= parts["rescale"].reshape(-1, 1)
    rotated -= rows
    return rotated


def _bound(parts: Parts, outputs: int) -> float:
    return float(parts["alpha"].reshape(())) * outputs if "alpha" in parts else 0.0


def _bounded(skew: Array, bound: float) -> Array:
    """Shrink all blocks together to a norm of at most `bound` (0: any)."""
    norm = float(np.linalg.norm(skew))
    return skew * (bound / norm) if 0 < bound < norm else skew


def cayley(skew: Array) -> Array:
    """Return the rotations ``(I + Q) (I - Q)^-1`` of skew-symmetric blocks [..., size, size]."""
    identity = np.eye(skew.shape[-1])
    rotation: Array = (identity + skew) @ np.linalg.inv(identity - skew)
    return rotation


def block_product(blocks: Array, rows: Array) -> Array:
    """Multiply a block-diagonal matrix, blocks [number, size, size], with [number * size, any]."""
    number, size, _ = blocks.shape
    return (blocks @ rows.reshape(number, size, -1)).reshape(rows.shape)


def _butterfly(stages: Array, rows: Array) -> Array:
    half = stages.shape[-1] // 2
    for index, blocks in enumerate(stages):
        length = 2**index * half
        runs = rows.reshape(-1, 2, length, rows.shape[1]).swapaxes(1, 2)
        mixed = block_product(blocks, runs.reshape(rows.shape))
        runs = mixed.reshape(-1, length, 2, rows.shape[1]).swapaxes(1, 2)
        rows = runs.reshape(rows.shape)
    return rows


OFT = Kind(
    name="OFT",
    endings={".oft_blocks": "oft_blocks", ".oft_diag": "oft_diag", ".rescale": "rescale"},
    needs=(frozenset({"oft_blocks"}), frozenset({"oft_diag"})),
    fits=fits,
    change=change,
    multiplicative=True,
)
