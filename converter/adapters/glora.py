"""GLoRA: ``alpha / rank * (W @ a1 @ a2 + b1 @ b2)``: it transforms the weight and adds to it.

Sources: https://arxiv.org/abs/2306.07967; keys and layout as in LyCORIS. Its first versions stored
the factors of each product the other way round; shapes tell, and where they cannot, the present
order is meant.
"""

import numpy as np

from converter.adapters.base import Kind, Parts, Shape, Shapes, flat, matrix
from converter.weights import Array

NEEDS = frozenset({"a1", "a2", "b1", "b2"})
SWAPPED = {"a1": "a2", "a2": "a1", "b1": "b2", "b2": "b1"}


def fits(shapes: Shapes, weight: Shape) -> bool:
    """a1 [inputs, rank], a2 [rank, inputs], b1 [outputs, rank], b2 [rank, inputs, *kernel]."""
    if any(len(shapes[part]) < 2 for part in NEEDS) or len(weight) < 2:
        return False
    return _ordered_fit(shapes, weight) or _ordered_fit(_swapped(shapes), weight)


def _ordered_fit(shapes: Shapes, weight: Shape) -> bool:
    rank = shapes["a2"][0]
    return (
        flat(shapes["a1"]) == (weight[1], rank)
        and flat(shapes["a2"]) == (rank, weight[1])
        and flat(shapes["b1"]) == (weight[0], rank)
        and flat(shapes["b2"]) == (rank, flat(weight)[1])
    )


def _swapped(shapes: Shapes) -> Shapes:
    return {part: shapes[SWAPPED[part]] for part in NEEDS}


def change(weight: Array, parts: Parts) -> Array:
    """Return the transformed weight's difference plus the added product."""
    shapes = {part: parts[part].shape for part in NEEDS}
    if not _ordered_fit(shapes, weight.shape):
        parts = {part: parts[SWAPPED[part]] for part in NEEDS}
    a1, a2, b1, b2 = (matrix(parts[part]) for part in ("a1", "a2", "b1", "b2"))
    inputs_last = np.moveaxis(weight, 1, -1)
    transformed = np.moveaxis(inputs_last @ a1 @ a2, -1, 1)
    return np.asarray(transformed + (b1 @ b2).reshape(weight.shape))


def rank(shapes: Shapes) -> int:
    """The smaller extent of a1: inputs in one order, rank in both."""
    return min(flat(shapes["a1"]))


GLORA = Kind(
    name="GLoRA",
    endings={f".{part}.weight": part for part in sorted(NEEDS)},
    needs=(NEEDS,),
    fits=fits,
    change=change,
    rank=rank,
    multiplicative=True,
)
