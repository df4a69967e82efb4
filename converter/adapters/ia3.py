"""IA3: ``W * (1 + w)`` per input or per output channel; PEFT stores the factor ``1 + w`` itself.

Sources: https://arxiv.org/abs/2205.05638; `weight` and `on_input` as in LyCORIS, `ia3_l` as in
PEFT: [outputs, 1] for most linear layers and [1, inputs] for feed-forward ones; [1, channels, 1, 1]
for convolutions, where only its configuration tells inputs from as many outputs. Where PEFT scales
outputs it scales the bias with them; LyCORIS leaves the bias.
"""

from math import prod

import numpy as np

from converter.adapters.base import Kind, Parts, Shape, Shapes, all_scalars
from converter.weights import Array


def fits(shapes: Shapes, weight: Shape) -> bool:
    """As many numbers as the weight has inputs or outputs."""
    if "ia3_l" in shapes:
        return _peft_fits(shapes, weight)
    return (
        len(weight) >= 2 and prod(shapes["ia3_w"]) in weight[:2] and prod(shapes["on_input"]) == 1
    )


def _peft_fits(shapes: Shapes, weight: Shape) -> bool:
    factor = shapes["ia3_l"]
    if len(weight) == 2:
        return factor in ((weight[0], 1), (1, weight[1]))
    if len(weight) < 2 or not all_scalars(shapes, ("feedforward",)):
        return False
    known = weight[0] != weight[1] or "feedforward" in shapes
    return known and factor in [(1, n, *[1] * (len(weight) - 2)) for n in weight[:2]]


def change(weight: Array, parts: Parts) -> Array:
    """Scale the weight along one of its first two axes, by as much as the factor differs from 1."""
    if "ia3_l" in parts:
        factor, axis = parts["ia3_l"].reshape(-1) - 1, _peft_axis(weight.shape, parts)
    else:
        factor, axis = parts["ia3_w"].reshape(-1), _axis(weight.shape, parts)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    return np.asarray(weight * factor.reshape(shape))


def _axis(weight: Shape, parts: Parts) -> int:
    if weight[0] == weight[1]:
        return int(parts["on_input"].reshape(()) != 0)
    return weight[:2].index(parts["ia3_w"].size)


def _peft_axis(weight: Shape, parts: Parts) -> int:
    factor = parts["ia3_l"]
    if len(weight) == 2:
        return int(factor.shape != (weight[0], 1))
    if weight[0] == weight[1]:
        return int(parts["feedforward"].reshape(()) != 0)
    return weight[:2].index(factor.size)


def bias_fits(shapes: Shapes, bias: Shape) -> bool:
    """PEFT's factors of a layer's outputs; of a convolution also as many of its inputs."""
    factor = shapes.get("ia3_l", ())
    outputs = factor[:1] if len(factor) == 2 else factor[1:2]
    return outputs == bias and prod(factor) == prod(bias)


def bias_change(bias: Array, parts: Parts) -> Array:
    """Scale the bias like the outputs, or by nothing where a convolution's inputs are scaled."""
    if parts["ia3_l"].ndim > 2 and parts.get("feedforward", np.zeros(())).reshape(()) != 0:
        return np.zeros_like(bias)
    return np.asarray(bias * (parts["ia3_l"].reshape(-1) - 1))


IA3_BIAS = Kind(
    name="IA3 of a bias",
    endings={},
    needs=(frozenset({"ia3_l"}),),
    fits=bias_fits,
    change=bias_change,
    multiplicative=True,
    tensor="bias",
)
IA3 = Kind(
    name="IA3",
    endings={".weight": "ia3_w", ".on_input": "on_input", ".ia3_l": "ia3_l"},
    needs=(frozenset({"ia3_w", "on_input"}), frozenset({"ia3_l"})),
    fits=fits,
    change=change,
    multiplicative=True,
    settings=("feedforward",),
    bias=IA3_BIAS,
)
