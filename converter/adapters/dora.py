"""DoRA: ``m * V / |V|`` with ``V = W + change``, on top of any kind that changes a weight.

The norm runs over each output (or each input) of the *changed* weight. Sources:
https://arxiv.org/abs/2402.09353; `dora_scale` as in LyCORIS and kohya's forks, where its shape says
which axis is meant; `lora_magnitude_vector` as in PEFT, where it is always the layer's outputs
(of an embedding the weight's second axis), although for a convolution it is stored as
[1, outputs, 1, 1].
"""

from math import prod

import numpy as np

from converter.adapters.base import Shape
from converter.weights import Array

ENDINGS = {
    ".dora_scale": "dora_scale",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}

PARTS = frozenset(ENDINGS.values())


def kept_axis(part: str, magnitude: Shape, weight: Shape, outputs: int = 0) -> int | None:
    """The weight's axis that the magnitudes run along, None where they do not fit.

    `outputs` is its axis of the layer's outputs.
    """
    if len(weight) < 2:
        return None
    if part == "magnitude":
        return outputs if prod(magnitude) == weight[outputs] else None
    ones = [1] * (len(weight) - 2)
    if magnitude in ((weight[0],), (weight[0], 1), (weight[0], 1, *ones)):
        return 0
    return 1 if magnitude in ((1, weight[1]), (1, weight[1], *ones)) else None


def decompose(adapted: Array, magnitude: Array, axis: int) -> Array:
    """Give each slice of `adapted` along `axis` its norm in `magnitude`; a slice of zeros stays."""
    others = tuple(i for i in range(adapted.ndim) if i != axis)
    norm = np.sqrt(np.square(adapted).sum(others, keepdims=True))
    wanted = magnitude.reshape(norm.shape)
    return np.asarray(adapted * np.divide(wanted, norm, out=np.ones_like(norm), where=norm != 0))
