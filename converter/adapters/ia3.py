"""IA3: ``W * (1 + w)`` per input or per output channel; PEFT stores the factor ``1 + w`` itself.

Sources: https://arxiv.org/abs/2205.05638; `weight` and `on_input` as in LyCORIS, `ia3_l` as in
PEFT: [outputs, 1] for most linear layers, [1, inputs] for feed-forward ones. For convolutions its
shape does not say which, so those are not merged.
"""

from math import prod

import numpy as np

from converter.adapters.base import Kind, Parts, Shape, Shapes
from converter.weights import Array


def fits(shapes: Shapes, weight: Shape) -> bool:
    """As many numbers as the weight has inputs or outputs."""
    if "ia3_l" in shapes:
        return len(weight) == 2 and shapes["ia3_l"] in ((weight[0], 1), (1, weight[1]))
    return (
        len(weight) >= 2 and prod(shapes["ia3_w"]) in weight[:2] and prod(shapes["on_input"]) == 1
    )


def change(weight: Array, parts: Parts) -> Array:
    """Scale the weight along one of its first two axes, by as much as the factor differs from 1."""
    if "ia3_l" in parts:
        return np.asarray(weight * (parts["ia3_l"] - 1))
    factor = parts["ia3_w"].reshape(-1)
    if weight.shape[0] == weight.shape[1]:
        axis = int(parts["on_input"].reshape(()) != 0)
    else:
        axis = weight.shape[:2].index(len(factor))
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    return np.asarray(weight * factor.reshape(shape))


IA3 = Kind(
    name="IA3",
    endings={".weight": "ia3_w", ".on_input": "on_input", ".ia3_l": "ia3_l"},
    needs=(frozenset({"ia3_w", "on_input"}), frozenset({"ia3_l"})),
    fits=fits,
    change=change,
    multiplicative=True,
)
