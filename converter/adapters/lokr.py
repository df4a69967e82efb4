"""LoKr: ``alpha / rank * kron(w1, w2)``; each factor whole, or itself of low rank.

Sources: https://arxiv.org/abs/2212.10650; keys, Tucker form (t2) and the rule that two whole
factors know no `alpha` as in LyCORIS. PEFT divides its `alpha` by its `r` for whole factors too.
"""

from math import prod

import numpy as np

from converter.adapters.base import Kind, Parts, Shape, Shapes, flat, matrix
from converter.adapters.tucker import tucker, tucker_fits
from converter.weights import Array

FIRST = (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"}))
SECOND = (frozenset({"lokr_w2"}), frozenset({"lokr_w2_a", "lokr_w2_b"}))


def fits(shapes: Shapes, weight: Shape) -> bool:
    """The products of the factors' extents must be the weight's; the kernel is the second's."""
    if "lokr_w1" in shapes:
        w1: Shape | None = shapes["lokr_w1"]
    else:
        w1 = _product(shapes["lokr_w1_a"], shapes["lokr_w1_b"])
    if w1 is None or len(w1) != 2 or len(weight) < 2 or weight[0] % w1[0] or weight[1] % w1[1]:
        return False
    rest = (weight[0] // w1[0], weight[1] // w1[1], *weight[2:])
    if "lokr_w2" in shapes:
        w2 = shapes["lokr_w2"]
        return len(w2) >= 2 and flat(w2) == flat(rest)
    a, b = shapes["lokr_w2_a"], shapes["lokr_w2_b"]
    if "lokr_t2" in shapes:
        return tucker_fits(shapes["lokr_t2"], a, b, rest)
    return _product(a, b) == flat(rest)


def _product(a: Shape, b: Shape) -> Shape | None:
    whole = len(a) == 2 and len(b) >= 2 and a[1] == b[0]
    return (a[0], prod(b[1:])) if whole else None


def change(weight: Array, parts: Parts) -> Array:
    """Return the Kronecker product, in the weight's shape."""
    w1 = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    outputs, inputs = weight.shape[0] // w1.shape[0], weight.shape[1] // w1.shape[1]
    w2 = _second(parts).reshape(outputs, inputs, *weight.shape[2:])
    return np.kron(w1.reshape(*w1.shape, *[1] * (w2.ndim - 2)), w2)


def _second(parts: Parts) -> Array:
    if "lokr_w2" in parts:
        return parts["lokr_w2"]
    a, b = parts["lokr_w2_a"], parts["lokr_w2_b"]
    return tucker(parts["lokr_t2"], a, b) if "lokr_t2" in parts else a @ matrix(b)


def rank(shapes: Shapes) -> int | None:
    """The rank of the decomposed factor; None when both are whole."""
    return next((shapes[n][0] for n in ("lokr_w2_b", "lokr_w1_b") if n in shapes), None)


LOKR = Kind(
    name="LoKr",
    endings={f".{part}": part for part in ("lokr_t2", *sorted(frozenset().union(*FIRST, *SECOND)))},
    needs=tuple(first | second for first in FIRST for second in SECOND),
    fits=fits,
    change=change,
    rank=rank,
    peft_rank=True,
)
