"""OFT as PEFT trains it: rotated inputs, ``W -> W R^T``; rows of an embedding, ``W -> W R``.

R is block-diagonal. A row of `oft_R` is the upper triangle of one block's skew-symmetric Q; one row
may stand for every block (`block_share`). R is ``(I - Q) (I + Q)^-1`` or, with
`use_cayley_neumann`, the first terms of the series of ``(I + Q) (I - Q)^-1``; with `coft` each Q is
first cut to a norm of `eps`, divided by the root of their number. Only PEFT's configuration tells.

Sources: https://arxiv.org/abs/2306.07280, `peft/tuners/oft/layer.py` of
https://github.com/huggingface/peft. Convolutions wider than 1x1 are not merged: while PEFT trains
them, overlapping patches add up to what no rotated weight gives.
"""

from math import isqrt, prod

import numpy as np

from converter.adapters.base import Kind, Parts, Shape, Shapes, all_scalars, matrix
from converter.adapters.oft import block_product, cayley
from converter.weights import Array

SETTINGS = ("use_cayley_neumann", "num_cayley_neumann_terms", "coft", "eps")


def fits(shapes: Shapes, weight: Shape) -> bool:
    """Blocks of `size` rows have size (size - 1) / 2 numbers, and divide the inputs."""
    return len(weight) >= 2 and prod(weight[2:]) == 1 and _triangles_fit(shapes, weight[1])


def refuse(weight: Shape) -> str | None:
    """Tell a convolution whose patches overlap."""
    wide = prod(weight[2:]) > 1
    return "PEFT's OFT of a convolution wider than 1x1 is no change of a weight" if wide else None


def embedding_fits(shapes: Shapes, weight: Shape) -> bool:
    """The same for the width of an embedding."""
    return len(weight) == 2 and _triangles_fit(shapes, weight[1])


def _triangles_fit(shapes: Shapes, inputs: int) -> bool:
    triangles = shapes["oft_R"]
    if len(triangles) != 2 or not all_scalars(shapes, SETTINGS):
        return False
    number, size = triangles[0], block_size(triangles[1])
    return size * (size - 1) == 2 * triangles[1] and (
        number * size == inputs or (number == 1 and inputs % size == 0)
    )


def block_size(triangle: int) -> int:
    """Rows of the block whose upper triangle has this many numbers."""
    return (1 + isqrt(1 + 8 * triangle)) // 2


def change(weight: Array, parts: Parts) -> Array:
    """Return what rotating the inputs changes."""
    columns = matrix(weight).T
    rotated = block_product(_rotations(parts, len(columns)), columns)
    return np.ascontiguousarray((rotated - columns).T)


def embedding_change(weight: Array, parts: Parts) -> Array:
    """Return what rotating the rows of an embedding changes."""
    columns = weight.T
    rotated = block_product(_rotations(parts, len(columns)).swapaxes(-1, -2), columns)
    return np.ascontiguousarray((rotated - columns).T)


def _rotations(parts: Parts, inputs: int) -> Array:
    triangles = parts["oft_R"]
    size = block_size(triangles.shape[1])
    skew = np.zeros((len(triangles), size, size))
    rows, columns = np.triu_indices(size, 1)
    skew[:, rows, columns] = triangles
    skew -= skew.swapaxes(-1, -2)
    settings = {name: float(parts[name].reshape(())) for name in SETTINGS}
    if settings["coft"]:
        skew = _constrained(skew, settings["eps"] / len(skew) ** 0.5)
    if settings["use_cayley_neumann"]:
        rotations = _series(skew, int(settings["num_cayley_neumann_terms"]))
    else:
        rotations = cayley(-skew)
    return np.broadcast_to(rotations, (inputs // size, size, size))


def _constrained(skew: Array, bound: float) -> Array:
    """Shrink each block to a norm of at most `bound`."""
    norms = np.linalg.norm(skew, axis=(1, 2), keepdims=True)
    return np.where(norms <= bound, skew, skew * (bound / np.where(norms == 0, 1, norms)))


def _series(skew: Array, terms: int) -> Array:
    """``I + 2 Q + 2 Q^2 + ... + Q^(terms - 1)``, PEFT's cut of the series (3 terms: up to Q^3)."""
    rotation = np.broadcast_to(np.eye(skew.shape[-1]), skew.shape).copy()
    if terms > 1:
        rotation += 2 * skew
    if terms > 2:
        power = skew @ skew
        rotation += 2 * power
        for _ in range(3, terms - 1):
            power = power @ skew
            rotation += 2 * power
        rotation += power @ skew
    return rotation


PEFT_OFT = Kind(
    name="OFT of PEFT",
    endings={".oft_R.weight": "oft_R"},
    needs=(frozenset({"oft_R", *SETTINGS}),),
    fits=fits,
    change=change,
    multiplicative=True,
    settings=SETTINGS,
    refuse=refuse,
)
PEFT_OFT_EMBEDDING = Kind(
    name="OFT of an embedding",
    endings={".oft_embedding_R.weight": "oft_R"},
    needs=(frozenset({"oft_R", *SETTINGS}),),
    fits=embedding_fits,
    change=embedding_change,
    multiplicative=True,
    settings=SETTINGS,
)
